"""Where good graders disagree: one choice for all answers, each named in docs/measures.md, section Grading."""

UNIT_MAY_BE_LEFT_OUT = True  # gold `5 \text{ cm}`, answer 5
PERCENT_SIGN_MAY_BE_LEFT_OUT = True  # gold 35\%, answer 35; and the other way round, from 1 on
BASE_MAY_BE_LEFT_OUT = True  # gold 204_5, answer 204
MODULUS_MAY_BE_LEFT_OUT = True  # gold 5 \pmod 9, answer 5
PARENTHESES_MAY_HOLD_A_LIST = True  # gold 4, 9 or \{4, 9\}, answer (4, 9)
OPEN_INTERVAL_MAY_BE_A_POINT = True  # gold (3, 11), answer 3 < x < 11
OPTION_TEXT_ALONE_IS_ENOUGH = True  # gold (C) 18, answer 18
MAX_GOLD_WORDS = 10  # of a gold answer in prose; a longer one is no answer that can be compared: no opinion
