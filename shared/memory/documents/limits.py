"""How large a document may be, and what reading one may cost. Each is far above what people write by hand."""

MAX_BYTES = 20_000_000
"""Of the document as sent."""
MAX_CHARACTERS = 5_000_000
"""Of the text taken from it: about 2,500 printed pages."""
MAX_PAGES = 2_000
MAX_STREAM_BYTES = 32_000_000
"""Of one PDF stream once decompressed; a page of text has some 10,000."""
MAX_MEMORY_BYTES = 768_000_000
"""Address space of the process that reads it."""
TIME_LIMIT_S = 60.0
"""Wall and processor time of that process, unless the caller says otherwise. The largest PDF takes some 30 s."""
