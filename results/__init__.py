"""Result tables: schema, statistics, comparison, figures. Knows tables only, never models."""
