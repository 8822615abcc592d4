"""What comes in and goes out: records, images, and the files that hold them."""
