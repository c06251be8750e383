"""What frozen encoders give, computed once and kept."""
