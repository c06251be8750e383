"""The training engine: it is handed an objective and knows no method."""
