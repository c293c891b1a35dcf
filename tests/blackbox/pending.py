"""Cases whose right answer Sluice does not give yet, each with what it waits for. They are played
all the same; one that passes is to be taken out here."""

PENDING: dict[str, str] = {}
