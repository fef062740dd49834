"""PS3.8, the DICOM upper layer: bytes ⇄ PDUs ⇄ states, without I/O and without a clock."""
