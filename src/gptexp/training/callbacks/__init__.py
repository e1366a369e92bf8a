"""What runs beside training: the record, the display, the samples, the checkpoints."""
