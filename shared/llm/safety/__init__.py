"""Takes out of prompts and answers what must not travel."""
