"""What makes weights."""
