"""What everything runs on: device, precision, several processes."""
