"""Published encoders, which take published weights."""
