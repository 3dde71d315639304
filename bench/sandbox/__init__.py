"""What a sandboxed call costs beside a plain interpreter."""
