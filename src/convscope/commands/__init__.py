"""Commands of the command line that are not one registered method or view."""
