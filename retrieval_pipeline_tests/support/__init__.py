"""What several tests need: servers, encoders, a hub stand-in, the kill harness."""
