"""Several processes in one run: who they are, how they meet, what they say to each other."""
