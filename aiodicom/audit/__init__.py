"""Audit messages (PS3.15 §A.5): who did what to whose data, to a file or to a collector by syslog over TLS (PS3.15 §A.6).

They name patients, studies and users, as the Standard wants it: an audit trail is to be kept as safe as the data themselves.
What is logged names none of them; the two have nothing in common.
"""

from aiodicom.audit.auditor import Auditor
from aiodicom.audit.destinations import AuditFile, SyslogCollector
from aiodicom.audit.trail import AuditTrail

__all__ = ["AuditFile", "AuditTrail", "Auditor", "SyslogCollector"]
