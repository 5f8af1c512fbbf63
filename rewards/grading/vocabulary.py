r"""Words beside a number: which are units, which change the value, and which say nothing.

A line of `UNITS` is one unit of one dimension, with every spelling of it; a plural s is understood.
"""

_UNITS = {
    "length": """km kilometer kilometre | m meter metre | dm decimeter decimetre | cm centimeter centimetre
        | mm millimeter millimetre | nm nanometer nanometre | micrometer micron | in inch inches | ft foot feet
        | yd yard | mi mile | furlong | league | light-year lightyear""",
    "mass": "kg kilogram kilo | g gram gramme gm | mg milligram | t ton tonne | lb lbs pound | oz ounce",
    "time": """h hr hrs hour | min mins minute | s sec secs second | ms millisecond | day | week wk | month | yr year
        | decade | century centuries""",
    "volume": """l liter litre | ml milliliter millilitre | cl centiliter centilitre | gal gallon | qt quart | pt pint
        | cup | tbsp tablespoon | tsp teaspoon | bushel""",
    "area": "ha hectare | acre",
    "money": """dollar usd buck | euro eur | poundsterling gbp sterling quid | yen jpy | yuan cny rmb renminbi | rupee
        inr rs | cent | penny pence pennies | dime | nickel | franc chf | peso | rouble ruble | won krw""",
    "angle": "degree deg | radian rad | grad gradian | arcminute | arcsecond",
    "temperature": "celsius centigrade | fahrenheit | kelvin",
    "speed": "mph | kmh kmph kph | knot",
    "physics": """hz hertz | khz kilohertz | mhz megahertz | ghz gigahertz | n newton | kn kilonewton | j joule
        | kj kilojoule | mj megajoule | ev | kev | mev | cal calorie | kcal kilocalorie | w watt | kw kilowatt
        | megawatt | kwh | v volt | kv kilovolt | mv millivolt | a amp ampere | ma milliamp milliampere | ohm | kohm
        | f farad | c coulomb | tesla | pa pascal | kpa kilopascal | mpa | hpa | bar | atm atmosphere | mol mole | mmol
        | k | b bit | byte | kb kilobyte | mb megabyte | gb gigabyte | rpm | db decibel | lumen | candela""",
    "counted": "percent pct | unit | point | digit | ways way",
}
SIGNS = {
    "\u7c73": "m",
    "\u5143": "yuan",
    "\u5398\u7c73": "cm",
    "\u5343\u7c73": "km",
    "\u516c\u91cc": "km",
    "\u5206\u949f": "min",
    "\u79d2": "s",
    "\u5c0f\u65f6": "h",
    "\u5929": "day",
    "\u5ea6": "degree",
    "\u514b": "g",
    "\u5343\u514b": "kg",
    "\u5347": "l",
}
# Units that are read as such right behind a digit: 18cm, and not the product 3nm.
COMPOUNDS = {"mph": {"mi": 1, "h": -1}, "kmh": {"km": 1, "h": -1}}
GLUED = frozenset("cm mm km kg mg ml mL kWh kHz MHz Hz kJ kW mph kph ft lb lbs oz hrs hr min mins sec kmh".split())
NEUTRAL = frozenset("unit point digit ways".split())  # named, but no other unit than none: 3 units is 3

UNITS: dict[str, str] = {}
DIMENSIONS: dict[str, str] = {}
for _dimension, _lines in _UNITS.items():
    for _line in _lines.split("|"):
        _names = _line.split()
        for _name in _names:
            for _spelling in (_name, _name + "s", _name + "es" if _name.endswith(("s", "x", "ch")) else _name):
                if len(_name) > 2 or _spelling == _name:
                    UNITS.setdefault(_spelling, _names[0])
        DIMENSIONS[_names[0]] = _dimension
UNITS |= SIGNS
# Where case tells two units apart, or a capital is the unit and the small letter none.
CASED = {
    "M": None,
    "MW": "megawatt",
    "mW": "milliwatt",
    "MPa": "mpa",
    "MJ": "mj",
    "mJ": "millijoule",
    "T": "tesla",
    "K": "kelvin",
    "k": None,
    "a": None,
    "b": None,
    "v": None,
    "j": None,
    "n": None,
    "w": None,
    "c": None,
    "f": None,
    "t": "t",
    "G": None,
    "H": None,
    "S": None,
    "B": "byte",
    "Mb": "megabit",
    "mol": "mol",
    "MHz": "mhz",
    "mHz": "millihertz",
    "N": "n",
    "J": "j",
    "W": "w",
    "V": "v",
    "A": "a",
    "C": "c",
    "F": "f",
    "L": "l",
}
CURRENCIES = {
    "\\$": "dollar",
    "\u20ac": "euro",
    "\u00a3": "poundsterling",
    "\u00a5": "yen",
    "\uffe5": "yen",
    "\u20b9": "rupee",
}

MULTIPLIERS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
               "lakh": 10**5, "crore": 10**7, "dozen": 12, "dozens": 12, "millions": 10**6, "billions": 10**9,
               "thousands": 10**3, "hundreds": 10**2, "\u4e07": 10**4, "\u4ebf": 10**8}  # fmt: skip

# Words that change what the number says; both sides must say them alike.
CARRYING = frozenset(
    """east west north south eastward westward northward southward northeast northwest southeast southwest
    up down upward downward upwards downwards left right clockwise counterclockwise anticlockwise forward backward
    not no none non never neither nor except without but
    least most fewer less more than over under above below beyond between from to until exceeding exceeds exceed
    minimum maximum min max greater larger smaller higher lower bigger before after since
    remainder modulo mod decrease decreases decreased increase increases increased gain loss lost profit deficit debt
    even odd half halves third thirds quarter twice double triple times squared cubed
    or either possibly maybe infinitely infinite finite all any every some
    am pm bc ad bce ce inclusive exclusive negative minus plus""".split()
)
# Two spellings of one word that carries.
ALIKE = {"eastward": "east", "westward": "west", "northward": "north", "southward": "south", "upward": "up",
         "upwards": "up", "downward": "down", "downwards": "down", "r": "remainder"}  # fmt: skip
SILENT = frozenset(
    """a an the is are of in it its be approximately about roughly exactly only just total altogether overall there
    therefore so thus hence and both each we get have has answer solution result value final""".split()
)
NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
BASES = {name: n for n, name in enumerate(NUMERALS.split())} | {
    "twenty": 20,
    "binary": 2,
    "octal": 8,
    "decimal": 10,
    "hex": 16,
}


def unit(word: str) -> str | None:
    """The one name of a unit, however it is spelled; None where the word is none.

    >>> unit("kilometres"), unit("hrs"), unit("marbles"), unit("M")
    ('km', 'h', None, None)
    """
    if word in CASED:
        return CASED[word]
    return UNITS.get(word.lower())
