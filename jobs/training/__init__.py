"""How the shipped weights were made; `jobs/train_generator.py` and `fits.py` are its commands."""
