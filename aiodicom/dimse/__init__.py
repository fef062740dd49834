"""PS3.7: DIMSE messages as values and bytes, without I/O and without a clock.

==============  ==================================================================
`status`        status codes, their category and meaning (PS3.7 Annex C, PS3.4)
`commands`      one frozen dataclass for each command of PS3.7 §9.3 and §10.3
`codec`         a command set's bytes ⇄ one of those dataclasses (PS3.7 §6.3)
`fragments`     a message ⇄ the PDVs that carry it (PS3.8 Annex E)
==============  ==================================================================
"""
