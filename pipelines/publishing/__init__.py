"""What a release shows to people: its card and its page."""
