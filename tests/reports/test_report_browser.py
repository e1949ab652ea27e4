"""The page in a real browser: it can be read, sorted, filtered, printed, and it asks nobody for anything."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attribug.results.html_page import PageContents, page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow
SCHEMES = ("light", "dark")
WIDE, PHONE = 1280, 390
TAB, ENTER, CONTROL, SPACE, DELETE = "\ue004", "\ue007", "\ue009", "\ue00d", "\ue017"  # as WebDriver calls them
LEAST_CONTRAST = 4.5

CONTRAST = """
const channel = (c) => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
const parse = (text) => { const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a ?? 1]; };
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const behind = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
  return layers.reverse().reduce((under, layer) => over(layer, under), canvas);
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
  if (!text || ['SCRIPT', 'STYLE', 'OPTION'].includes(element.tagName)) continue;
  const style = getComputedStyle(element), under = behind(element);
  const [a, b] = [light(over(parse(element.ownerSVGElement ? style.fill : style.color), under)), light(under)];
  found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), text.slice(0, 40)]);
}
return found;
"""
HIDDEN = """
return [...document.querySelectorAll('main *')].filter((e) => e.childElementCount === 0 && e.textContent.trim()
  && !e.closest('nav, .controls, .rows, script, style, .unseen, svg') && !e.checkVisibility()).map((e) => e.outerHTML);
"""
CUT = """
return [...document.querySelectorAll('.scroll, pre')]
  .filter((e) => getComputedStyle(e).overflowY !== 'visible').map((e) => e.className);
"""
OPEN = "document.querySelectorAll('details').forEach((e) => (e.open = true))"
REACHABLE = "a[href], button, input, select, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Headless Chromium; without one the tests are skipped, unless this is CI."""
    from selenium import webdriver

    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("expected chromium and chromedriver, found none")
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def pages(
    smoke_run: Path,
    made_run: Callable[..., PageContents],
    hostile: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A page of a real run, and one of a larger run with hostile names."""
    from attribug.reports.pages import write_report

    folder = tmp_path_factory.mktemp("pages")
    names = [*hostile, *(f"method_{number}" for number in range(12)), "random", "edges", "predictions"]
    bugs = {"reinit": ("1", "3", "all"), hostile[0]: ("1",), hostile[1]: (hostile[9],)}
    (folder / "made.html").write_text(page(made_run(names, bugs)), encoding="utf-8")
    return {"smoke": write_report(smoke_run, folder / "smoke.html"), "made": folder / "made.html"}


@pytest.fixture(params=["smoke", "made"])
def shown(request: pytest.FixtureRequest, browser: Chrome, pages: dict[str, Path]) -> Chrome:
    """The browser with each of the pages, wide and light."""
    return opened(browser, pages[request.param])


@pytest.fixture
def made(browser: Chrome, pages: dict[str, Path]) -> Chrome:
    """The browser with the larger page."""
    return opened(browser, pages["made"])


def opened(browser: Chrome, path: Path, *, width: int = WIDE, scheme: str = "light", media: str = "screen") -> Chrome:
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    emulate(browser, width=width, scheme=scheme, media=media)
    browser.get(path.as_uri())
    return browser


def emulate(browser: Chrome, *, width: int = WIDE, scheme: str = "light", media: str = "screen") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def inserted(browser: Chrome, html: str) -> None:
    """Breaks the page, so that a check can show that it notices."""
    browser.execute_script("document.querySelector('main').insertAdjacentHTML('afterbegin', arguments[0])", html)


def complaints(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]


def requests(browser: Chrome) -> list[str]:
    """What the page has asked for, beside itself."""
    import json

    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:") and url != browser.current_url]


def faint(browser: Chrome) -> list[Any]:
    return [pair for pair in browser.execute_script(CONTRAST) if pair[0] < LEAST_CONTRAST]


def overflow(browser: Chrome) -> int:
    """Pixels by which the page is wider than the window."""
    return int(browser.execute_script("const e = document.documentElement; return e.scrollWidth - e.clientWidth"))


def visible_methods(browser: Chrome) -> list[str]:
    code = "return [...document.querySelectorAll('tr.method')].filter(e => !e.hidden).map(e => e.dataset.name)"
    return list(browser.execute_script(code))


def column(browser: Chrome, number: int) -> list[float]:
    """Effects of the explanations in one column of the first matrix, from top to bottom."""
    code = """return [...document.querySelector('table.matrix').tBodies[0].querySelectorAll('tr.method')]
              .map((row) => Number(row.children[arguments[0]].dataset.effect))"""
    return list(browser.execute_script(code, number))


def test_the_console_is_silent_and_nobody_is_asked(shown: Chrome) -> None:
    assert complaints(shown) == []
    assert requests(shown) == []
    assert shown.title.startswith("attribug: ")
    assert shown.execute_script("return document.querySelectorAll('script').length") == 1
    assert not shown.execute_script("return document.querySelectorAll('b, [onerror], [onmouseover]').length")


def test_these_checks_reject(made: Chrome) -> None:
    """A script that throws, and a picture from outside, which the page's own policy stops."""
    made.execute_async_script("setTimeout(() => { throw new Error('broken'); }); setTimeout(arguments[0], 50)")
    assert any("broken" in message for message in complaints(made))
    inserted(made, '<img src="https://attribug.invalid/x.png">')
    assert any("attribug.invalid" in message for message in complaints(made))
    made.execute_script("history.replaceState(null, '', '#settings')")
    made.get("data:text/html,<img src='http://127.0.0.1:9/x.png'>")
    assert any("127.0.0.1" in url for url in requests(made))


def test_an_injected_script_would_not_run(made: Chrome) -> None:
    made.execute_script("document.body.append(Object.assign(document.createElement('img'), {src: 'x'}))")
    inserted(made, "<img src=x onerror=\"document.title='owned'\">")
    made.execute_script("const s = document.createElement('script'); s.textContent = \"document.title='owned'\"; "
                        "document.body.append(s)")  # fmt: skip
    assert made.title == "attribug: made"
    assert any("Content Security Policy" in message for message in complaints(made))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_has_contrast(shown: Chrome, scheme: str) -> None:
    emulate(shown, scheme=scheme)
    shown.execute_script(OPEN)
    measured = shown.execute_script(CONTRAST)
    assert len(measured) > 100
    assert faint(shown) == []
    assert any(ratio > 10 for ratio, _ in measured)
    inserted(shown, '<p style="color: #999; background: #888">faint</p>')
    assert [text for _, text in faint(shown)] == ["faint"]


def test_dark_is_dark(made: Chrome) -> None:
    code = "return getComputedStyle(document.body).backgroundColor"
    light = made.execute_script(code)
    emulate(made, scheme="dark")
    assert made.execute_script(code) != light


@pytest.mark.parametrize("scheme", SCHEMES)
def test_something_is_painted(shown: Chrome, scheme: str) -> None:
    emulate(shown, scheme=scheme)
    assert colours(shown) > 50
    shown.execute_script("document.querySelector('main').remove(); document.querySelector('header').remove()")
    assert colours(shown) < 10


def colours(browser: Chrome) -> int:
    """Different colours on the first screen."""
    from PIL import Image

    shot = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"), np.int64)
    return len(np.unique(shot @ [1 << 16, 1 << 8, 1]))


def test_a_phone_needs_no_sideways_scrolling(shown: Chrome) -> None:
    emulate(shown, width=PHONE)
    shown.execute_script(OPEN)
    assert shown.execute_script("return innerWidth") == PHONE
    assert overflow(shown) <= 0
    inserted(shown, '<div style="width: 500px">wide</div>')
    assert overflow(shown) > 0


def test_wide_tables_scroll_in_boxes_that_keys_reach(made: Chrome) -> None:
    emulate(made, width=PHONE)
    boxes = made.execute_script("""return [...document.querySelectorAll('.scroll')].map((e) =>
        [e.tabIndex, e.getAttribute('role'), (e.getAttribute('aria-label') || '').length > 0,
         e.scrollWidth > e.clientWidth])""")
    assert all(box[:3] == [0, "region", True] for box in boxes)
    assert any(box[3] for box in boxes)


def test_clicking_a_head_sorts(made: Chrome) -> None:
    heads = made.find_elements("css selector", "th.sortable")
    before = visible_methods(made)
    for head, turn in ((heads[1], "descending"), (heads[1], "ascending"), (heads[2], "descending")):
        head.find_element("css selector", "button").click()
        effects = column(made, heads.index(head))
        assert effects == sorted(effects, reverse=turn == "descending")
        assert effects != sorted(effects, reverse=turn != "descending")
        sorts = {each.get_attribute("aria-sort") for each in heads if each != head}
        assert (head.get_attribute("aria-sort"), sorts) == (turn, {None})
    heads[0].find_element("css selector", "button").click()
    after = visible_methods(made)
    assert after != before
    assert sorted(after) == sorted(before)
    assert set(after[-4:]) == set(before[-4:])  # what explains nothing stays apart


def test_keys_sort_and_a_third_time_restores(made: Chrome) -> None:
    before, head = visible_methods(made), made.find_elements("css selector", "th.sortable")[1]
    button = head.find_element("css selector", "button")
    made.execute_script("arguments[0].focus()", button)
    for key, turn in ((SPACE, "descending"), (ENTER, "ascending"), (SPACE, None)):
        made.switch_to.active_element.send_keys(key)
        assert head.get_attribute("aria-sort") == turn
        assert (visible_methods(made) == before) == (turn is None)


def test_filters_by_name_and_by_verdict(made: Chrome) -> None:
    text = made.find_element("id", "filter-text")
    everything = visible_methods(made)
    text.send_keys("METHOD_1")
    assert visible_methods(made) == ["method_1", "method_10", "method_11"]
    assert made.find_element("id", "filter-count").text == f"3 of {len(everything)} rows"
    text.send_keys(CONTROL + "a", DELETE)
    assert visible_methods(made) == everything
    text.send_keys("<script>")
    assert len(visible_methods(made)) == 1
    text.send_keys(CONTROL + "a", DELETE)
    made.find_element("css selector", "#filter-verdict option[value=blind]").click()
    assert set(visible_methods(made)) == {"random", "edges"}
    made.find_element("css selector", "#filter-verdict option[value=failed]").click()
    assert visible_methods(made) == []


def test_tab_reaches_everything_and_shows_where_it_is(shown: Chrome) -> None:
    shown.execute_script(OPEN)
    expected = shown.execute_script(f'return document.querySelectorAll("{REACHABLE}").length')
    shown.execute_script("window.met = []; document.body.focus()")
    for _ in range(expected):
        shown.switch_to.active_element.send_keys(TAB)
        shown.execute_script("""const e = document.activeElement, s = getComputedStyle(e);
            met.push([e, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2])""")
    missed = shown.execute_script(f"""const seen = new Set(met.map((pair) => pair[0]));
        return [...document.querySelectorAll("{REACHABLE}")].filter((e) => !seen.has(e)).map((e) => e.outerHTML)""")
    assert missed == []
    assert shown.execute_script("return met.filter((pair) => !pair[1]).map((pair) => pair[0].outerHTML)") == []


def test_a_focus_that_cannot_be_seen_is_noticed(made: Chrome) -> None:
    made.execute_script("document.styleSheets[0].insertRule(':focus-visible { outline: none !important }')")
    made.switch_to.active_element.send_keys(TAB)
    assert made.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "none"


def test_print_shows_everything_but_every_row(shown: Chrome) -> None:
    inserted(shown, "<details><summary>shut</summary><p>on the screen</p></details>")
    assert shown.execute_script(HIDDEN)
    assert shown.execute_script(CUT)
    emulate(shown, media="print")
    assert shown.execute_script(HIDDEN) == []
    assert shown.execute_script(CUT) == []


def test_without_scripts_everything_but_sorting_is_there(browser: Chrome, pages: dict[str, Path]) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened(browser, pages["made"])
        assert not browser.find_element("css selector", ".controls").is_displayed()
        assert browser.find_elements("css selector", "th button") == []
        assert browser.find_element("css selector", "table.matrix td.v-blind").is_displayed()
        browser.find_element("css selector", "details summary").click()
        assert browser.find_element("css selector", "details table").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


SHORT_BOXES = """
return [...document.querySelectorAll('.gallery')].filter((e) => e.scrollHeight > e.clientHeight + 1).length;
"""
DOTS_OUTSIDE = """
const drawn = [...document.querySelectorAll('.drawing:not(.wide) svg')];
const outside = (e) => { const box = e.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth + 1; };
return [drawn.length, drawn.flatMap((svg) => [...svg.querySelectorAll('use')]).filter(outside).length];
"""
LOST = """
return [...document.querySelectorAll('a[href^="#"]')].map((e) => e.getAttribute('href'))
  .filter((href) => href !== '#' && !document.getElementById(href.slice(1)));
"""
UNTOLD = """
const names = (section) => [...section.querySelectorAll('.rows tbody th')].map((e) => e.textContent);
return [...document.querySelectorAll('table.matrix')].flatMap((table) => {
  const links = [...table.querySelectorAll('.facts a')].map((a) => document.getElementById(a.hash.slice(1)));
  const told = (row, at) => links[at] && names(links[at]).includes(row.dataset.name.split(': ')[0]);
  return [...table.querySelectorAll('tr.method')].flatMap((row) => [...row.querySelectorAll('td')]
    .filter((cell, at) => cell.title && !told(row, at)).map(() => row.dataset.name));
});
"""


def test_all_rows_of_a_gallery_are_seen(shown: Chrome) -> None:
    for width in (WIDE, PHONE):
        emulate(shown, width=width)
        assert shown.find_elements("css selector", ".gallery tbody tr")
        assert shown.execute_script(SHORT_BOXES) == 0
    shown.execute_script("document.styleSheets[0].insertRule('.gallery { max-height: 3rem }', 0)")
    assert shown.execute_script(SHORT_BOXES) > 0


def test_effects_keep_their_dots_on_a_phone(shown: Chrome) -> None:
    emulate(shown, width=PHONE)
    drawings, outside = shown.execute_script(DOTS_OUTSIDE)
    assert drawings
    assert outside == 0
    rules = "document.styleSheets[0].cssRules.length"
    shown.execute_script(
        f"document.styleSheets[0].insertRule('.drawing svg {{ min-width: 60rem !important }}', {rules})"
    )
    assert shown.execute_script(DOTS_OUTSIDE)[1] > 0


def test_names_lead_to_their_sentences(shown: Chrome) -> None:
    assert shown.execute_script(LOST) == []
    assert shown.find_elements("css selector", "table.matrix a.piece")
    inserted(shown, '<a href="#nowhere">lost</a>')
    assert shown.execute_script(LOST) == ["#nowhere"]


def test_what_hovering_tells_is_told_without_it(shown: Chrome) -> None:
    """Every cell of the matrix stands with all its numbers in the section that its column links to."""
    assert shown.find_elements("css selector", "table.matrix td[title]")
    assert shown.execute_script(UNTOLD) == []
    shown.execute_script("document.querySelectorAll('.rows').forEach((e) => e.remove())")
    assert shown.execute_script(UNTOLD) != []


def test_training_images_stand_above_the_maps_of_their_bug(browser: Chrome, pages: dict[str, Path]) -> None:
    opened(browser, pages["smoke"])
    pictures = browser.find_elements("css selector", ".training img")
    assert len(pictures) == 2  # of the background and of labels; the other bugs train on nothing else
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) > 0 for picture in pictures)
