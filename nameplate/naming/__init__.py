"""Names, policies and rename rules: strings only."""
