"""An OpenCLIP model: load, encode, save."""
