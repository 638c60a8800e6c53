"""Where readings are written besides memory: one file a destination."""
