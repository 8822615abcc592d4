"""What a person may want to change: recipes."""
