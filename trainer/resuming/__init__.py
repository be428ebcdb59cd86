"""What decides whether and how a run goes on: where it stood, what differs, what gives way."""
