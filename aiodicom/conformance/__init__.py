"""A conformance suite for any DICOM acceptor: what it answers, byte for byte, to what it should refuse, outlive or take.

It speaks over bare connections, in bytes made by hand, so that nothing of this package's own upper layer is believed; each
case is a row of a table, with the section of the Standard that it is about. Beside every case a second peer asks for
C-ECHO: whatever happens to one connection, the others are to go on. See `python -m aiodicom.conformance --help`.
"""
