"""Which emoji are near-duplicates by name or by appearance: they must not be in two different splits."""

import re

import numpy as np

# Words that vary one concept without making a new one.
VARIANTS = frozenset(
    "red orange yellow green blue purple brown black white pink grey light "
    "large medium small big high low loudly slightly "
    "up down left right leftwards rightwards upwards downwards upper lower raised lowered oncoming facing front "
    "tilted pointed pointing curving backhand "
    "1st 2nd 3rd first second third last next single double two hump heavy "
    "open closed done not non half old older new fast "
    "male female man men woman women person people boy girl mans mens womans womens "
    "showing with and the of in on a at".split()
)
PEOPLE = frozenset("man men woman women person people boy girl child adult baby old older merman mermaid".split())
ALIASES = {
    "merman": "merperson",
    "mermaid": "merperson",
    "princess": "prince",
    "person with crown": "prince",
    "breast-feeding": "feeding baby",
    "woman feeding baby": "feeding baby",
    "man feeding baby": "feeding baby",
    "person feeding baby": "feeding baby",
    "santa claus": "claus",
    "mrs. claus": "claus",
    "mx claus": "claus",
    "unlocked": "locked",
    "woman and man holding hands": "holding hands",
    "bust in silhouette": "silhouette",
    "busts in silhouette": "silhouette",
    "trade mark": "copyright",
    "registered": "copyright",
    "counterclockwise arrows button": "clockwise vertical arrows",
}
# (pattern over the lower-case name, concept): sets of emoji drawn and named after one template.
TEMPLATES = (
    (r"o’clock$|-thirty$", "clock face"),
    (r"^keycap: ", "keycap"),
    (r"^(new|full|first quarter|last quarter|(waxing|waning) (crescent|gibbous)|crescent) moon( face)?$", "moon"),
    (r"^japanese “.*” button$", "japanese button"),
    (r"button \(blood type\)$", "blood type button"),
    (r"^input ", "input symbols"),
    (r"^(back|end|on!|soon|top) arrow$", "word arrow"),
    (r"^(cl|cool|free|id|new|ng|ok|p|sos|up!|vs) button$|^circled m$|^information$", "word button"),
    (r"banknote$", "banknote"),
    (r"-no-evil monkey$", "no evil monkey"),
    (r"^cloud with ", "cloud with weather"),
    (r"^sun behind .*cloud$", "sun behind cloud"),
    (r"place medal$|^sports medal$", "place medal"),
    (r"^globe ", "globe"),
    (r"^chart (increasing|decreasing)|^bar chart$", "chart"),
    (r"^family(:|$)", "family"),
    (r"^mobile phone( off| with arrow)?$", "mobile phone"),
    (r"^bell( with slash)?$", "bell"),
    (r"^(beer mug|clinking beer mugs)$", "beer mug"),
    (r" suit$", "card suit"),
    (r"biking$", "biking"),
    (r"wheelchair", "wheelchair"),
    (r"^(right|left)wards( pushing)? hand$|^raised hand$", "hand"),
    (r"^hollow red circle$", "circle"),
    (r"^(soft )?ice cream$", "ice cream"),
    (r"^card index", "card index"),
    (r"^grinning (face|squinting)", "grinning face"),
    (r"^kissing face", "kissing face"),
    (r"face with tongue$", "face with tongue"),
    (r"^(neutral|expressionless) face$", "face without expression"),
    (r"face with open mouth$", "face with open mouth"),
    (r"^(check|cross) mark( button)?$|^check box with check$", "check or cross mark"),
)
# Root mean square over pixels, 0 to 255: below it two pictures differ in a detail only. Flags are flat and fill the
# picture; some differ in a small emblem.
IMAGE_DISTANCE = 12.5
FLAG_DISTANCE = 17.0
FLAGS = 9


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def concept_key(name: str, group: int, subgroup: str) -> str:
    """Returns what is left of a name without the words that only vary it (gender, age, colour, size, direction).

    Args:
      name: the emoji's name, without "flag: ".
      group: the Unicode group; heads and whole bodies of an animal (group 3) are one concept.
      subgroup: the Unicode subgroup; countries keep their full name.

    Returns:
      The key; two emoji with one key are near-duplicates.

    Example:
      >>> concept_key("woman walking: facing right", 1, "person-activity")
      'walking'
      >>> concept_key("old woman", 1, "person")
      'adult or child'
    """
    lower = name.lower()
    if subgroup in ("country-flag", "subdivision-flag"):
        return f"flag {lower}"
    for pattern, concept in TEMPLATES:
        if re.search(pattern, lower):
            return concept
    lower = lower.partition(":")[0]  # "man: beard", "kiss: woman, man", "person walking: facing right"
    lower = ALIASES.get(lower, lower)
    words = re.findall(r"[\w]+", lower.replace("’", ""))
    if group == 1 and all(word in PEOPLE for word in words):
        return "adult or child"
    if group in (3, 5) and len(words) > 1:
        words = [word for word in words if word != "face"]
    kept = [_singular(word) for word in words if word not in VARIANTS]
    return " ".join(kept or words)


def near_duplicate_pairs(images: np.ndarray, groups: list[int]) -> list[tuple[int, int]]:
    """Returns the pairs of one class whose pictures, as they are or mirrored, are almost the same.

    Args:
      images: ``(n, height, width, 3)`` float32, 0 to 255, on white.
      groups: the class of each image; across classes only nearly blank pictures come this close.
    """
    flat = images.reshape(len(images), -1)
    of = np.asarray(groups)
    same = of[:, None] == of
    limit = np.where(of == FLAGS, FLAG_DISTANCE, IMAGE_DISTANCE)
    pairs = set()
    for other in (flat, images[:, :, ::-1].reshape(len(images), -1)):
        squares = (flat**2).sum(1)[:, None] + (other**2).sum(1) - 2 * flat @ other.T
        near = (squares / flat.shape[1] < limit**2) & same
        pairs.update((int(i), int(j)) for i, j in np.argwhere(near) if i < j)
    return sorted(pairs)
