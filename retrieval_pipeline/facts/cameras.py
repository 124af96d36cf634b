"""The name of a camera for people, from the make and model that cameras write."""

# Words by which makers name their companies, not their brands.
_COMPANY = frozenset(
    {
        *("ag", "camera", "co", "communications", "company", "computer", "corp", "corporation"),
        *("digital", "electric", "electronics", "gmbh", "imaging", "inc", "incorporated"),
        *("industrial", "international", "limited", "ltd", "mobile", "optical"),
        *("technologies", "technology"),
    }
)


def camera_name(make: str | None, model: str | None) -> str | None:
    """Return make and model with the make once: "NIKON CORPORATION", "NIKON D750": "Nikon D750"."""
    brand = [_cased(word) for word in (make or "").replace(",", " ").split()]
    while len(brand) > 1 and brand[-1].rstrip(".").lower() in _COMPANY:
        brand.pop()
    words = (model or "").split()
    names = {word.lower() for word in brand}
    repeated = 0
    while repeated < len(words) and words[repeated].lower() in names:
        repeated += 1
    if repeated:
        # The model names the brand as the maker writes it for people: Kodak, not Eastman Kodak.
        brand = [_cased(word) for word in words[:repeated]]
    return " ".join([*brand, *words[repeated:]]) or None


def _cased(word: str) -> str:
    """Write NIKON and samsung with one capital; leave HP and OnePlus as they are."""
    return word.capitalize() if word.islower() or (word.isupper() and len(word) > 3) else word
