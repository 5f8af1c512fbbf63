r"""Every kind of answer that was graded wrong, from both sides: what a fix too lenient, or too strict, would break.

A line is `gold | answer | grade`.
"""

import json
import math

import pytest

from rlred.rewards import Correctness
from rlred.rewards.correctness import boxed_answer, golds_of, text_of
from rlred.rewards.grading import forms
from rlred.rewards.grading.exact import rational
from rlred.rewards.grading.labels import squeezed
from rlred.rewards.grading.spelling import RULES, clean
from tests.paths import ROOT

KINDS = {
    "mixed number": r"""
        27/4 | 6 3/4 | 1
        27/4 | 6\tfrac{3}{4} | 1
        27/4 | 6 + 3/4 | 1
        63/4 | 6 3/4 | 0
        -\frac{11}{3} | -3\frac{2}{3} | 1
        -\frac{7}{3} | -3\frac{2}{3} | 0
        2\frac12 | 2.5 | 1
        91 | 9 1 | 0
        7000 | 7 000 | 1""",
    "piecewise": r"""
        \begin{cases} x^2 & x<0 \\ 1 & x>0\end{cases} | \begin{cases} x^2, & \text{if } x<0 \\ 1, & x>0 \end{cases} | 1
        f(x)=\begin{cases} x^2 & x<0 \\ 1 & x\ge 0 \end{cases} | \begin{cases} x^2 & x<0 \\ 2 & x\ge 0 \end{cases} | 0
        f(x)=\begin{cases} x^2 & x<0 \\ 1 & x\ge 0 \end{cases} | 0 | 0
        f(x)=\begin{cases} x^2 & x<0 \\ 1 & x\ge 0 \end{cases} | 1 | 0""",
    "tiny": r"""
        6.63 \times 10^{-34} | 6.63 \times 10^{-35} | 0
        6.63 \times 10^{-34} | 0.663 \times 10^{-33} | 1
        \frac{1}{2004!} | \frac{1}{2006!} | 0
        \frac{1}{30!} | \frac{1}{30 \cdot 29!} | 1
        e^{-50} | e^{-49} | 0
        e^{-50} | 0 | 0
        \pi \cdot 10^{-20} | \pi \cdot 10^{-21} | 0
        1-10^{-30} | 1 | 0
        3^{100} | 3^{100}+1 | 0""",
    "scientific": r"""
        1.2e3 | 1200 | 1
        1.2e3 | 1.2 \cdot 10^{3} | 1
        6E-4 | 0.0006 | 1
        6E-4 | 0.006 | 0
        4.5 \times 10^{33} | 4.5e33 | 1
        4.5 \times 10^{33} | 4.5e32 | 0
        5e^3 | 5000 | 0""",
    "units": r"""
        42 | 42 \text{ apples} | 1
        42 | 42 m^2 | 1
        42 | 42 \text{ kg} \cdot \text{m/s} | 1
        42 | 24 \text{ apples} | 0
        12 \text{ cm} | 12 centimeters | 1
        12 \text{ cm} | 12 \text{ mm} | 0
        12 \text{ cm}^2 | 12 \text{ square centimeters} | 1
        12 \text{ cm}^2 | 12 \text{ cm} | 0
        12 \text{ m/s}^2 | 12\,\mathrm{m\,s^{-2}} | 1
        60 \text{ miles per hour} | 60 mph | 1
        60 \text{ km/h} | 60 \text{ m/s} | 0
        5 \text{ north} | 5 \text{ south} | 0
        5 | 5 \text{ north} | 0""",
    "compound units": r"""
        2 \text{ hours } 15 \text{ minutes} | 2 \text{ hr } 15 \text{ min} | 1
        2 \text{ hours } 15 \text{ minutes} | 2h 15min | 1
        2 \text{ hours } 15 \text{ minutes} | 2 \text{ hours and } 15 \text{ minutes} | 1
        2 \text{ hours } 15 \text{ minutes} | 2 \text{ hours } 50 \text{ minutes} | 0
        2 \text{ hours } 15 \text{ minutes} | 2 \text{ hours} | 0
        2 | 2 \text{ hours } 15 \text{ minutes} | 0""",
    "time": r"""
        7:30 \text{ p.m.} | 7:30 PM | 1
        7:30 \text{ p.m.} | 7{:}30\text{ p.m.} | 1
        7:30 \text{ p.m.} | 7:30 \text{ a.m.} | 0
        3 \text{ p.m.} | 3:00 \text{ PM} | 1
        12:05 | 12:50 | 0""",
    "base": r"""
        2431_7 | 2431_{\text{seven}} | 1
        2431_7 | (2431)_{7} | 1
        2431_7 | 2431_8 | 0
        2431_7 | 2413_7 | 0
        A3_{12} | a3_{12} | 1""",
    "letters in order": r"""
        CADB | \text{CADB} | 1
        CADB | CABD | 0
        2pq | 2qp | 1
        2pq | 2pr | 0
        A<B<C | C>B>A | 1
        A<B<C | A<C<B | 0
        X \to Y \to Z | X \rightarrow Y \rightarrow Z | 1
        X \to Y \to Z | Z \to Y \to X | 0
        \triangle ABC | \triangle ABD | 0""",
    "derivative": r"""
        \frac{dy}{dx} = 3x^2 | 3x^2 | 1
        \frac{dy}{dx} = 3x^2 | \frac{dy}{dx} = 2x^2 | 0
        \frac{d^2y}{dx^2} = 6 | \frac{d^2 y}{dx^2}=6 | 1
        f'(2) = 12 | 12 | 1
        f'(2) = 12 | f'(2)=21 | 0
        \ddot{x} + 9x = 0 | \ddot{x}+9x=0 | 1
        \ddot{x} + 9x = 0 | \ddot{x} + 4x = 0 | 0
        y' = -y | y' = y | 0""",
    "sequence": r"""
        2, 4, 6, \ldots | 2, 4, 6, \dots | 1
        2, 4, 6, \ldots | 2, 4, 8, \ldots | 0
        2, 4, 6, \ldots | 2, 4, 6, 8 | 0
        1, 2, \ldots, n | 1, 3, 5, \ldots, 2n-1 | 0
        \{1,2,\ldots,n\} | \{1,2,...,n\} | 1
        1+2+\cdots+n | 1+3+\cdots+n | 0""",
    "tuple and thousands": r"""
        (12,345) | (12345) | 0
        (12,345) | (12, 345) | 1
        (12,345) | (345,12) | 0
        45,100 | 100, 45 | 1
        1,234,567 | 1\,234\,567 | 1
        1,234,567 | 1234 | 0
        (1,100),(2,200) | (2,200),(1,100) | 1
        (1,100),(2,200) | (1,200),(2,100) | 0
        a=100, b=200 | (100,200) | 1
        a=100, b=200 | a=200, b=100 | 0""",
    "style": r"""
        73 | **73** | 1
        73 | \boldsymbol{73} | 1
        73 | {\color{blue}73} | 1
        73 | \textcolor{#ff0000}{73} | 1
        73 | {\large\bf 73} | 1
        73 | 73\;\checkmark | 1
        73 | 73! | 0
        73 | **37** | 0
        81 | 3**4 | 1
        12 | 3**4 | 0
        \frac{7}{12} | \mathbf{\frac{7}{12}} | 1""",
    "punctuation": r"""
        73 | 73, | 1
        73 | 73; | 1
        73 | 73\text{.} | 1
        120 | 5! | 1
        5 | 5! | 0
        -1, 4 | -1, 4; | 1""",
    "unicode": "\n".join(
        [
            "3\\sqrt{7} | 3\u221a7 | 1",
            "3\\sqrt{7} | 7\u221a3 | 0",
            "x^{10} | x\u00b9\u2070 | 1",
            "x^{10} | x\u00b9\u00b9 | 0",
            "\\frac{3}{8} | \u215c | 1",
            "3.75 | 3\u00be | 1",
            "1.5 | \uff11\uff0e\uff15 | 1",
            "-4 | \u2212 4 | 1",
            "-4 | 4 | 0",
            "(1,2) | \uff081\uff0c2\uff09 | 1",
            "x \\ge 2 | x\u22652 | 1",
            "x \\ge 2 | x\u22642 | 0",
            "25 | 25 \u516c\u91cc | 1",
        ]
    ),
    "choice": r"""
        B | \textbf{(B)} 12 | 1
        B | B: x^2 | 1
        B | \text{Option (B)} | 1
        B | The correct answer is (B) | 1
        B | A) B | 0
        B | B or C | 0
        B | \text{not B} | 0
        B | \text{Bat} | 0
        B | 8 | 0
        \textbf{(D) } 7 | D | 1
        \textbf{(D) } 7 | (C) 7 | 0
        A, C | C and A | 1
        A, C | A | 0""",
    "prefix": r"""
        64.5 | \text{Final answer: } 64.5 | 1
        64.5 | \text{Total cost: } 64.5 | 1
        64.5 | V = 3 \cdot 21.5 = 64.5 \text{ cm}^3 | 1
        64.5 | m\angle A = 64.5^\circ | 1
        64.5 | x = 65.5 | 0
        64.5 | x \ne 64.5 | 0
        64.5 | x=64.5, y=1 | 0
        3, -1 | x_1=3, x_2=-1 | 1""",
    "currency": r"""
        1250 | \$1,250 | 1
        1250 | $1,250 | 1
        1250 | Rs. 1250 | 1
        1250 | \$125 | 0
        \$1,250 | 1250 \text{ dollars} | 1
        -40 | -\$40 | 1
        -40 | \$40 | 0""",
    "repeating decimal": r"""
        \frac{2}{3} | 0.\overline{6} | 1
        \frac{2}{3} | 0.(6) | 1
        \frac{2}{3} | 0.666\ldots | 1
        \frac{2}{3} | 0.67 | 0
        \frac{2}{3} | 0.6\overline{7} | 0
        0.\overline{123} | \frac{41}{333} | 1
        \frac{41}{333} | 0.\dot{1}2\dot{3} | 1""",
    "surds": r"""
        2+\sqrt{3} | \frac{1}{2-\sqrt{3}} | 1
        2+\sqrt{3} | \frac{1}{2+\sqrt{3}} | 0
        \sqrt{2}+\sqrt{3} | \sqrt{5+2\sqrt{6}} | 1
        \sqrt{a/b} | \frac{\sqrt{a}}{\sqrt{b}} | 1
        \sqrt{x^2} | x | 0""",
    "e": r"""
        2\mathrm{e}^{3} | 2e^3 | 1
        e^2-1 | \exp(2)-1 | 1
        e^2-1 | 6.389 | 0
        5e3 | 5000 | 1""",
    "empty set": r"""
        \varnothing | \emptyset | 1
        \varnothing | \{ \} | 1
        \varnothing | 0 | 0
        \text{no solution} | No solution. | 1
        \text{no solution} | 0 | 0""",
    "intervals and inequalities": r"""
        [0,4) | 0 \leq x < 4 | 1
        [0,4) | [0,4] | 0
        0 \le t \le 4 | t \in [0,4] | 1
        (-\infty,3) | 3>x | 1
        (-\infty,3) | x\le 3 | 0
        x<1 \text{ or } x>3 | (-\infty,1)\cup(3,\infty) | 1
        x<1 \text{ or } x>3 | 1 < x < 3 | 0
        (-\infty,0)\cup(0,\infty) | x \ne 0 | 1
        k>\frac{1}{4} | (\frac14,\infty) | 1
        k>\frac{1}{4} | k>\frac{1}{3} | 0""",
    "several values": r"""
        5, 12 | 12 \text{ and } 5 | 1
        5, 12 | 5 | 0
        5, 12 | 5, 12, 13 | 0
        \frac{1}{2}, 3 | 3, 0.5 | 1
        x=2 \text{ or } x=-7 | -7, 2 | 1
        125 and 343 | 343 | 0""",
    "hedge": r"""
        53 | 53 \text{ or } 35 | 0
        53 | \text{not } 53 | 0
        53 | \text{between } 50 \text{ and } 53 | 0
        53 | 53y | 0
        53 | 53+C | 0
        53 | 53 \text{ (fifty-three)} | 1
        53 | \text{exactly } 53 | 1""",
    "qualifier": r"""
        20 | 20 \text{ million} | 0
        20 | \geq 20 | 0
        20 | \text{more than } 20 | 0
        20 | 20k | 0
        20 \text{ thousand} | 2 \times 10^4 | 1
        20 \text{ thousand} | 20 | 0
        3.2 million | 3,200,000 | 1
        3.2 million | 3.2 billion | 0
        5 \text{ remainder } 2 | 5 | 0
        \text{all odd } n | \text{all even } n | 0""",
    "percent": r"""
        12.5\% | \frac{1}{8} | 1
        12.5\% | 12.5 percent | 1
        12.5\% | 1.25\% | 0
        40\% | 0.4\% | 0""",
    "plus or minus": r"""
        \pm 5 | -5 \text{ and } 5 | 1
        \pm 5 | 5 | 0
        5 | \pm 5 | 0
        \frac{3 \pm \sqrt{5}}{2} | \frac{3+\sqrt5}{2}, \frac{3-\sqrt5}{2} | 1
        3.2 \pm 0.1 | 3.2 | 0""",
    "complex": r"""
        8i | (2+2i)^2 | 1
        5i | \sqrt{-25} | 1
        4+3i | 3+4i | 0
        \frac{1}{2}+\frac{\sqrt{3}}{2}i | e^{i\pi/3} | 1
        2\mathbf{i}+3\mathbf{j} | 3\mathbf{j}+2\mathbf{i} | 1
        2\mathbf{i}+3\mathbf{j} | 2\mathbf{i}-3\mathbf{j} | 0""",
    "matrix": r"""
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \left[\begin{array}{cc}1&2\\3&4\end{array}\right] | 1
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix} | 0
        \begin{pmatrix} 1/2 \\ 2 \end{pmatrix} | \begin{pmatrix} \frac12 \\ 2 \end{pmatrix} | 1""",
    "set": r"""
        \{1, 3, 5\} | A = \{5,3,1\} | 1
        \{1, 3, 5\} | \{1, 3\} | 0
        \{1, 3\} | \{3, 1, 1\} | 1""",
    "degree": r"""
        60^\circ | 60 degrees | 1
        60^\circ | 60 \text{ rad} | 0
        25^\circ\text{C} | 25 \text{ degrees Celsius} | 1
        25^\circ\text{C} | 25^\circ\text{F} | 0
        \frac{\pi}{4} | 60^\circ | 0""",
    "text": r"""
        Monday | \text{monday.} | 1
        Monday | Sunday | 0
        \text{rectangle} | \text{a rectangle} | 1
        April 5 | April 15 | 0
        2 \text{ red}, 4 \text{ green} | 4 \text{ green}, 2 \text{ red} | 1
        2 \text{ red}, 4 \text{ green} | 2 \text{ green}, 4 \text{ red} | 0
        \text{similar} | \text{not similar} | 0""",
    "yes and no": r"""
        Yes | \textbf{YES} | 1
        Yes | No | 0
        \text{No} | 0 | 0
        \text{Yes, } n=3 | 3 | 0""",
    "ratio": r"""
        3:4 | 6:8 | 1
        3:4 | \frac{3}{4} | 1
        3:4 | 4:3 | 0
        1:2:3 | 3:2:1 | 0
        1:2:3 | 2:4:6 | 1""",
    "expression": r"""
        y=2x+1 | 2x-y+1=0 | 1
        y=2x+1 | y=2x-1 | 0
        3x+2y=6 | \frac{x}{2}+\frac{y}{3}=1 | 1
        x^2+y^2=25 | 25 | 0
        h(t)=2 | h(t)=t | 0
        3*cos(2*x)+1 | 3\cos(2x)+1 | 1
        \cos 2x | 1-2\sin^2 x | 1
        2 | \lg 100 | 1
        6 | 2(3) | 1
        5 | 2(3) | 0
        10 | {5 \choose 2} | 1
        \sum_{k=1}^{n} k^2 | \sum_{i=1}^{n} i^2 | 1
        \sum_{k=1}^{n} k^2 | \sum_{k=1}^{n} k^3 | 0""",
    "modulus": r"""
        x \equiv 3 \pmod{7} | 3 \ (\text{mod } 7) | 1
        x \equiv 3 \pmod{7} | x \equiv 3 \pmod{8} | 0
        x \equiv 3 \pmod{7} | 7 | 0
        3 | 3 \pmod 7 | 1
        3 | 7 \pmod 3 | 0""",
    "letter and text": r"""
        A | A - 31 | 1
        A | A (31 m) | 1
        A | \text{(A) is wrong} | 0
        A | (A)(D) | 0
        A | (A) / (D) | 0
        A | \text{(A) and (D)} | 0
        A | A - D | 0
        A | D (A) | 0
        A | \textcircled{A} | 1
        E, F | EF | 1
        E, F | EG | 0
        EF | E, F | 1
        EF | F, E | 0""",
    "letter in Chinese": "\n".join(
        ["A | \u9009\u9879A | 1", "A | \\text{\u7b54\u6848\u9009 A} | 1", "A | \u9009\u9879B | 0"]
    ),
    "spelled by hand": r"""
        \frac{2}{9} | \sfrac{2}{9} | 1
        \frac{2}{9} | \nicefrac{9}{2} | 0
        35 | \binom73 | 1
        35 | \binom72 | 0
        \pm 6 | +/- 6 | 1
        \pm 6 | + 6 | 0
        90 | US$90 | 1
        90 | US$9 | 0
        20 \text{ m}^2 | 20 sq. m | 1
        20 \text{ m}^2 | 20 cu. m | 0
        20 \text{ m/s} | 20 m s^{-1} | 1
        20 \text{ m/s} | 20 m s^{-2} | 0
        (2,\infty) | (2, inf) | 1
        -\infty | infinity | 0
        (0,1)\cup(4,6) | (0,1) U (4,6) | 1
        (0,1)\cup(4,6) | (0,1) U (4,7) | 0
        8, 15 | 15 & 8 | 1
        8, 15 | 15 & 9 | 0""",
    "date": r"""
        2021-06-05 | \text{June 5, 2021} | 1
        2021-06-05 | 5 June 2021 | 1
        2021-06-05 | 2010 | 0
        2021-06-05 | 2021-05-06 | 0
        \text{June 5, 2021} | 5th of June 2021 | 1
        \text{June 5, 2021} | \text{June 5} | 0
        June 5 | July 5 | 0""",
    "range": r"""
        20-35 | \text{between } 20 \text{ and } 35 | 1
        20-35 | 20 to 35 | 1
        20-35 | -15 | 0
        20-35 | 20 | 0
        20-35 | 20-30 | 0
        4-1 | 3 | 0
        4-x | -x+4 | 1""",
    "half of the day": r"""
        17:20 | 17h20 | 1
        17:20 | 17h02 | 0
        12 \text{ p.m.} | \text{noon} | 1
        12 \text{ p.m.} | \text{midnight} | 0
        12:10 \text{ a.m.} | 0:10 | 1
        0:10 | 12:10 \text{ p.m.} | 0""",
    "base in words": r"""
        132_4 | 132 \text{ (base 4)} | 1
        132_4 | 132_{\text{base 4}} | 1
        132_4 | 132 \text{ in base six} | 0
        1101_2 | 0b1101 | 1
        1101_2 | 0b1011 | 0
        3A_{16} | 0x3a | 1
        30 | 30_{10} | 1
        30 | 30 \text{ (base 4)} | 0""",
    "sets in other notations": r"""
        (1,6] | \{x \mid 1 < x \le 6\} | 1
        (1,6] | \{x \in \mathbb{R} : 1 < x < 6\} | 0
        (1,6] | \{n \in \mathbb{Z} : 1 < n \le 6\} | 0
        (1,6] | ]1;6] | 1
        (1,6] | ]1;6[ | 0
        (1,6] | x > 1 \text{ and } x \le 6 | 1
        (1,6] | x > 1 \text{ or } x \le 6 | 0
        (1,6] | x > 1 | 0
        -2<a<2 | |a|<2 | 1
        -2<a<2 | |a|\le 2 | 0
        (1,7) | |x-4|<3 | 1
        (1,7) | |x+4|<3 | 0
        (-\infty,-5)\cup(9,\infty) | x<-5, x>9 | 1
        (-\infty,-5)\cup(9,\infty) | (-\infty,-5) \text{ and } (9,\infty) | 1
        (-\infty,-5)\cup(9,\infty) | x<-5 \text{ and } x>9 | 0
        (0,4)\cup(4,9) | 0<x<9, x \ne 4 | 1
        (0,4)\cup(4,9) | 0<x<9 | 0
        \mathbb{R}\setminus\{6\} | \text{all real numbers except } 6 | 1
        \mathbb{R}\setminus\{6\} | \text{all real numbers except } 5 | 0
        (1,2),(3,4) | (1,4),(3,2) | 0""",
    "named tuples and systems": r"""
        (4,9) | y=9, x=4 | 1
        (4,9) | y=4, x=9 | 0
        (4,9) | Q(4,9) | 1
        (4,9) | Q(9,4) | 0
        (x,y)=(4,9) | (4,9) | 1
        (x,y)=(4,9) | (9,4) | 0
        (p,q,r)=(2,5,8) | q=5, p=2, r=8 | 1
        (p,q,r)=(2,5,8) | p=5, q=2, r=8 | 0
        a=3, b=8 | \begin{cases} a=3 \\ b=8 \end{cases} | 1
        a=3, b=8 | \begin{aligned} a &= 3 \\ b &= 8 \end{aligned} | 1
        a=3, b=8 | a=3 \\ b=7 | 0
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | [[1, 2], [3, 4]] | 1
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | [[1, 3], [2, 4]] | 0
        \begin{pmatrix} 5 \\ 6 \end{pmatrix} | \begin{pmatrix} 5 \\[2mm] 6 \end{pmatrix} | 1
        \begin{pmatrix} 5 \\ 6 \end{pmatrix} | \begin{pmatrix} 6 \\[2mm] 5 \end{pmatrix} | 0""",
    "exact and rounded": r"""
        \sqrt{7} | \sqrt7 \approx 2.646 | 1
        \sqrt{7} | \sqrt8 \approx 2.828 | 0
        \frac{2}{9} | x = \frac29 \approx 0.22 | 1
        0.22 | \frac29 \approx 0.22 | 1
        0.2 | \frac29 \approx 0.22 | 0
        6 | 6 \approx 9 | 0""",
    "digits of other countries": r"""
        2.75 | 2,75 | 1
        2.75 | 2{,}75 \text{ m} | 1
        2.75 | (2,75) | 0
        275 | 2,75 | 0
        2,75 | 2.75 | 0
        4512.5 | 4.512,5 | 1
        4512.5 | 4 512,5 | 1
        4512 | 4.512 | 0
        8300200 | 8.300.200 | 1
        8300200 | 83,00,200 | 1
        8300200 | 8_300_200 | 1
        8300200 | 83,00,201 | 0""",
    "constants of any name": r"""
        x^4+C | x^4+K | 1
        x^4+C | x^4+C-3 | 1
        x^4+C | x^4 | 0
        x^4+C | x^3+C | 0
        \cos^2 x + C | -\sin^2 x + C | 1
        C+4 | C+5 | 0
        r+s+c | r+s+c+1 | 0
        C_1 e^{2x} + C_2 | A + Be^{2x} | 1
        C_1 e^{2x} + C_2 | A + Be^{3x} | 0
        Ce^{2x} | Ke^{2x} | 1
        Ce^{2x} | Ke^{5x} | 0
        ax+1 | bx+1 | 0
        \frac{\pi}{4}+\pi k | \frac{\pi}{4}+n\pi | 1
        \frac{\pi}{4}+\pi k | \frac{\pi}{4}+2n\pi | 0""",
    "precision": r"""
        \frac{22}{7} | \pi | 0
        0.5 | .50 | 1
        123456789012345678 | 123456789012345679 | 0""",
}
LINES = [(kind, *line.strip().rsplit(" | ", 2)) for kind, text in KINDS.items() for line in text.strip().split("\n")]


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_graded_from_both_sides(kind):
    lines = [line[1:] for line in LINES if line[0] == kind]
    assert {wanted for *_, wanted in lines} == {"0", "1"}
    grades = [Correctness().grade(f"\\boxed{{{answer}}}", gold) for gold, answer, _ in lines]
    wrong = [(line, grade) for line, grade in zip(lines, grades, strict=True) if grade != float(line[2])]
    assert wrong == []


@pytest.mark.parametrize(
    "what, pattern, replacement, pair", RULES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_rule_of_spelling_is_needed_for_its_pair(what, pattern, replacement, pair):
    assert squeezed(clean(pair[0])) == squeezed(clean(pair[1]))


@pytest.mark.parametrize("what, form, pair", forms.FORMS, ids=[what for what, _, _ in forms.FORMS])
def test_each_form_decides_its_pair(what, form, pair):
    def again(gold, answer):
        return forms.same(gold, answer, 1)

    assert form(clean(pair[0]), clean(pair[1]), again) is not None


@pytest.mark.parametrize(
    "solution, answer, expected",
    [
        (["842.17\n", "842\n"], "842", 1.0),
        (["842.17\n", "842\n"], "84", 0.0),
        (["5", "x"], "5, x", 0.0),  # alternatives, not all of them
        (["$4$,$9$"], "9, 4", 1.0),  # one alternative of two values
        (["$4$,$9$"], "4", 0.0),
        ([None, "7"], "7", 1.0),
        (26, "26", 1.0),
        (26.0, "26", 1.0),
        (0.125, r"\frac18", 1.0),
        (None, "17", None),
        (math.nan, "nan", None),
        ("NaN", "nan", None),
        ([], "17", None),
        (["", None], "17", None),
        ("  ", "17", None),
        ({"a": 1}, "17", None),
        ("?", "17", None),
        ("so 6*7=42\n#### 42", "42", 1.0),
        ("so 6*7=42\n#### 42", "6", 0.0),
        (r"First \boxed{3}, but then $\boxed{4}$.", "4", 1.0),
        ("A third of 90 is 30. The answer is 30.", "30", 1.0),
        ("A third of 90 is 30. The answer is 30.", "90", 0.0),
    ],
)
def test_solutions_of_every_shape(solution, answer, expected):
    assert Correctness()([f"\\boxed{{{answer}}}"], solution=[solution]) == [expected]
    assert Correctness().reads(solution) == (expected is not None)


@pytest.mark.parametrize(
    "completion, expected",
    [
        ("\\boxed{26}", 1.0),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "\\boxed"}, {"type": "text", "text": "{26}"}]}],
            1.0,
        ),
        ([{"role": "assistant", "content": [{"type": "image"}, "\\boxed{26}"]}], 1.0),
        ([{"role": "assistant", "reasoning_content": "13 * 2", "content": "\\boxed{26}"}], 1.0),
        ([{"role": "assistant", "reasoning_content": "\\boxed{26}", "content": "Done."}], 0.0),
        ([{"role": "assistant", "content": "\\boxed{26}"}, {"role": "tool", "content": "ok"}], 0.0),
        ([{"role": "assistant", "content": None}], 0.0),
        ([{"role": "assistant", "tool_calls": []}], 0.0),
        ([{"role": "tool", "content": "\\boxed{26}"}], 0.0),
        ({"role": "assistant", "content": "\\boxed{26}"}, 1.0),
        ([], 0.0),
        (None, 0.0),
        ([None], 0.0),
        ([{"role": "assistant", "content": 26}], 0.0),
    ],
)
def test_completions_of_every_shape(completion, expected):
    assert isinstance(text_of(completion), str)
    assert Correctness()([completion], solution=["26"]) == [expected]


@pytest.mark.parametrize(
    "text, expected",
    [
        (r"It is $\boxed 7$.", "7"),
        (r"It is $\boxed7$.", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{7 \\}", r"7 \\"),
        (r"$x=\boxed{2}$ or $x=\boxed{3}$", "2, 3"),
        (r"\boxed{2}, \boxed{3}", "2, 3"),
        (r"\boxed{2} is too small, so \boxed{3}", "3"),
        (r"\boxed{\frac{1}{4}} = \boxed{0.25}", "0.25"),
        (r"first \boxed{7}. Then \boxed{}", ""),
        (r"\boxed{7", None),
        ("7", None),
    ],
)
def test_boxes_of_every_shape(text, expected):
    assert boxed_answer(text) == expected


def test_a_model_without_an_end_of_thinking():
    for mark in (None, ""):
        assert Correctness(end_of_thinking=mark)(["a </think> \\boxed{4}"], solution=["4"]) == [1.0]
        with pytest.raises(ValueError, match="require_end_of_thinking needs correctness.end_of_thinking"):
            Correctness(end_of_thinking=mark, require_end_of_thinking=True)


def test_thinking_in_a_field_of_its_own_has_ended():
    required = Correctness(require_end_of_thinking=True)
    apart = [{"role": "assistant", "reasoning_content": "13 * 2", "content": "\\boxed{26}"}]
    assert required([apart, [{"role": "assistant", "content": "\\boxed{26}"}]], solution=["26", "26"]) == [1.0, 0.0]


def test_a_gold_of_many_words_gets_no_opinion_but_for_itself():
    prose = (
        "the sequence is bounded because each of its terms lies below the sum of a geometric series of ratio one half"
    )
    assert Correctness().grade(f"\\boxed{{\\text{{{prose}}}}}", prose) == 1.0
    assert Correctness().grade("\\boxed{it converges}", prose) is None


def test_numbers_are_read_exactly():
    assert rational("0." + "0" * 60 + "1") * 10**61 == 1
    assert rational("9" * 500) is None  # left to the limited process
    assert golds_of(["1", ["2", None]]) == ["1", "2"]


def test_the_cases_of_other_peoples_graders():
    path = ROOT.parent / "shared" / "cases" / "grading.jsonl"
    if not path.is_file():
        pytest.skip(f"the cases are absent: {path}")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = Correctness()([line["completion"] for line in lines], solution=[line["gold"] for line in lines])
    counted = [(line, grade) for line, grade in zip(lines, found, strict=True) if line["kind"] != "judgement"]
    other = [line for line, grade in counted if grade != line["expected"]]
    print(f"{len(counted) - len(other)} of {len(counted)} as expected")
    assert len(other) <= 0.03 * len(counted), other
