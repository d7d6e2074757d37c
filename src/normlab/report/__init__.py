"""What people read: tables, figures, the report, the README's tables."""
