"""How large a document may be, and what reading one may cost. Each is far above what people write by hand."""

MAX_BYTES = 20_000_000
"""Of the document as sent."""
MAX_CHARACTERS = 5_000_000
"""Of the text taken from it: about 2,500 printed pages."""
MAX_TITLE_CHARACTERS = 1_000
"""The beginning of a longer heading is title enough."""
MAX_REPEATED_BYTES = 64_000_000
"""Of title and metadata, which every chunk keeps, in all chunks together."""
MAX_PAGES = 2_000
MAX_STREAM_BYTES = 32_000_000
"""Of one PDF stream once decompressed; a page of text has some 10,000."""
MAX_STREAM_TOKENS = 500_000
"""Of one PDF stream: numbers, names and operators. A dense page of text has some 10,000, a map ten times that."""
MAX_MEMORY_BYTES = 512_000_000
"""Address space of the process that reads it. Markdown that is nothing but short lists reaches it before its length."""
TIME_LIMITS_S = {"application/pdf": 120.0, "text/html": 20.0, "text/markdown": 60.0}
"""Wall and processor time of that process: at least twice what the largest honest document takes."""
