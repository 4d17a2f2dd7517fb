"""The application behind the scripts: see README.md for a tour of its rooms."""
