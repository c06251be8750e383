"""The style sheet of a report's page."""

# The colours of series, one for each marker in `plots`: after Okabe and Ito (2008), whose colours colour-blind readers
# tell apart, lightened or darkened until each stands out from its ground at 4.5:1 or nearly so.
STYLE = """
:root { color-scheme: light dark; --page: #f7f6f3; --card: #fff; --ink: #1d1b1a; --soft: #6d6863; --line: #e3dfd9;
  --right: #00794f; --warn: #fff0d9;
  --s0: #0072b2; --s1: #c94f00; --s2: #00875f; --s3: #b04a87; --s4: #8a6a00; --s5: #4b5563; --s6: #6a3fc0;
  --s7: #1d1b1a; }
@media (prefers-color-scheme: dark) { :root { --page: #141312; --card: #1e1c1b; --ink: #f0ece7; --soft: #a39c94;
  --line: #34302d; --right: #4fd6a0; --warn: #3a2c14;
  --s0: #5cb8f0; --s1: #ff9a4d; --s2: #35c99a; --s3: #e59ac6; --s4: #e6cf4a; --s5: #b6bec9; --s6: #b79bff;
  --s7: #f0ece7; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
header, main, footer { max-width: 1160px; margin: 0 auto; padding: 0 clamp(16px, 4vw, 56px); }
header { padding-top: clamp(24px, 5vw, 64px); }
h1, h2, h3 { font-family: Georgia, serif; font-weight: 500; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.7rem, 4vw, 2.7rem); line-height: 1.2; margin: .15em 0 .4em; }
h2 { font-size: 1.6rem; line-height: 1.3; margin: 72px 0 16px; }
h3 { font-size: 1.15rem; line-height: 1.3; margin: 0; }
h4 { font: 600 .95rem/1.4 system-ui, sans-serif; margin: 0 0 6px; display: flex; flex-wrap: wrap; gap: 2px 8px;
  align-items: center; overflow-wrap: anywhere; }
small { color: var(--soft); font-weight: 400; font-size: .82rem; }
p { margin: 0 0 .8em; max-width: 75ch; text-wrap: pretty; overflow-wrap: anywhere; }
.over { color: var(--soft); font-size: .85rem; letter-spacing: .02em; margin: 0; }
.note { color: var(--soft); font-size: .92rem; margin: .3em 0 1em; }
.lead { font-size: 1.08rem; }
.warning { background: var(--warn); border-radius: 8px; padding: 10px 14px; }
.facts { display: flex; flex-wrap: wrap; gap: 14px 40px; margin: 28px 0 0; padding: 18px 0 0;
  border-top: 1px solid var(--line); }
dt { color: var(--soft); font-size: .82rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  margin: 0 0 20px; }
details { margin: 0 0 20px; }
summary { cursor: pointer; padding: 4px 0; color: var(--soft); overflow-wrap: anywhere; }
summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--s0); outline-offset: 3px; border-radius: 6px; }
details[open] summary { margin-bottom: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 14px 18px 6px; color: var(--soft); font-size: .92rem; }
th, td { padding: 9px 12px; text-align: right; vertical-align: baseline; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 18px; position: sticky; left: 0; background: var(--card); }
th:last-child, td:last-child { padding-right: 18px; }
thead th { font-weight: 600; vertical-align: bottom; }
thead th + th { min-width: 8em; white-space: normal; overflow-wrap: anywhere; }
thead .swatch { display: block; margin: 0 0 2px auto; }
tbody th { font-weight: 500; }
tbody tr { border-top: 1px solid var(--line); }
td small { display: block; }
.who { display: none; }
td .chance { color: var(--ink); font-style: italic; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; list-style: none; margin: 0 0 16px; padding: 0; }
.legend li { display: flex; align-items: center; gap: 8px; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px; }
figure { margin: 0; padding: 18px 20px 14px; background: var(--card); border: 1px solid var(--line);
  border-radius: 14px; display: flex; flex-direction: column; justify-content: space-between; gap: 8px; }
figcaption .note { margin: .2em 0 0; font-size: .86rem; }
figure.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 12px 32px;
  align-items: start; }
.plot { width: 100%; height: auto; display: block; overflow: visible; font: 12px system-ui, sans-serif; }
.plot text { fill: var(--ink); }
.plot .tick, .plot .label, .plot .faint { fill: var(--soft); font-variant-numeric: tabular-nums; }
.plot .name { font-weight: 500; }
.plot .faint { font-weight: 400; }
.plot .value { font-variant-numeric: tabular-nums; }
.grid, .axis, .zero, .ceiling { fill: none; stroke: var(--line); }
.axis { stroke: var(--soft); }
.zero { stroke: var(--ink); stroke-dasharray: 3 3; }
.ceiling { stroke: var(--soft); stroke-width: 1.4; stroke-dasharray: 1 4; stroke-linecap: round; }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); }
.s3 { --c: var(--s3); } .s4 { --c: var(--s4); } .s5 { --c: var(--s5); } .s6 { --c: var(--s6); } .s7 { --c: var(--s7); }
.line { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; }
.s1 .line { stroke-dasharray: 7 3; } .s2 .line { stroke-dasharray: 2 2.5; } .s3 .line { stroke-dasharray: 9 3 2 3; }
.s4 .line { stroke-dasharray: 12 4; } .s5 .line { stroke-dasharray: 4 2; } .s6 .line { stroke-dasharray: 9 3 2 3 2 3; }
.s7 .line { stroke-dasharray: 1 3; }
.marker { fill: var(--c); stroke: var(--card); stroke-width: 1; }
.marker [fill=none] { stroke: var(--c); stroke-width: 2; }
.whisker { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linecap: round; }
.bar { fill: var(--c); }
figure.pair .bar { opacity: .32; }
figure.pair .plot { max-width: 600px; }
.cards { display: grid; gap: 20px; margin: 0 0 40px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px 20px;
  display: grid; grid-template-columns: 210px minmax(0, 1fr); gap: 20px 32px; }
.query { display: grid; gap: 12px; align-content: start; }
.query > .image { width: 144px; }
.asked { font: 500 1.15rem/1.35 Georgia, serif; margin: 0; }
.asked span { color: var(--soft); font-size: .9rem; }
.rows { display: grid; gap: 14px; align-content: start; }
ol { list-style: none; margin: 0; padding: 0; }
.strip { display: grid; grid-template-columns: repeat(8, minmax(0, 1fr)); gap: 6px; }
.targets .strip { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.strip li { position: relative; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.strip .right, .texts .right { border: 3px solid var(--right); }
.strip .right .image { margin: -2px; width: calc(100% + 4px); }
.image { display: block; width: 100%; aspect-ratio: 1; background: #fff center / contain no-repeat;
  border-radius: 6px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.tick-mark { position: absolute; right: 0; bottom: 0; width: 20px; height: 20px; border-radius: 8px 0 0 0;
  background: var(--right); color: var(--card); font-size: 13px; line-height: 21px; text-align: center; }
.texts { display: grid; gap: 6px; }
.texts li { position: relative; border: 1px solid var(--line); border-radius: 8px; padding: 6px 34px 6px 12px;
  font-size: .92rem; line-height: 1.4; }
footer { margin-top: 72px; padding-bottom: 64px; color: var(--soft); font-size: .88rem; }
@media (max-width: 720px) {
  h2 { margin-top: 52px; }
  table, caption, tbody, tr, tbody th, td { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { padding: 8px 0; }
  tbody th:first-child { position: static; padding: 2px 14px; font-weight: 600; }
  td, td:last-child { display: flex; gap: 12px; align-items: baseline; justify-content: space-between;
    padding: 3px 14px; }
  .who { display: flex; gap: 8px; align-items: center; min-width: 0; text-align: left; white-space: normal;
    overflow-wrap: anywhere; }
  .who svg { flex: none; }
  .figure { flex: none; display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; justify-content: flex-end;
    max-width: 62%; }
  figure, article { padding: 14px; }
  article { grid-template-columns: minmax(0, 1fr); }
  .strip { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .query { grid-template-columns: 116px minmax(0, 1fr); grid-template-rows: auto 1fr; column-gap: 16px; }
  .query > .image { width: 116px; grid-row: span 2; }
  .plot { font-size: 14px; }
}
@media print { article, figure { break-inside: avoid; } }
"""
