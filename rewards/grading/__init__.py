"""What stands around math-verify when two answers are compared. `forms.compare(gold, answer)` is the way in.

    spelling, labels        normalisations before: spellings and labels that never change a value
    forms, notations, ...   forms whose parts are compared one by one: lists, units, intervals, times, bases, choices
    judge                   math-verify, and the exact checks after it
    conventions             the choices on which good graders differ, a constant each

rlred.rewards.grader runs all of it in a process that can be killed.
"""
