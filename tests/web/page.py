"""Looks at the page of a `web` sink as a person would, in headless Chromium.

With --toml it checks a page of two cameras, `ball` and `green`, and writes what the zone
editor made; with --shots it takes pictures of any page into a folder instead.
"""

import argparse
import os
import re
import signal
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

TIMEOUT_MS = 20_000
PHONE = {"width": 375, "height": 812}
DESK = {"width": 1280, "height": 720}

# What goes wrong inside the page: the console, exceptions, and the policy.
VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def tile(page, camera):
    return page.locator(f'#wall article[data-camera="{camera}"]')


def has_boxes(page, camera):
    """Waits until boxes are drawn on the very frame that they were found in."""
    element = tile(page, camera)
    page.wait_for_function(
        "(tile) => Number(tile.dataset.boxes) > 0 && tile.dataset.own === 'true'",
        arg=element.element_handle(),
    )


def pixels(page, camera):
    return tile(page, camera).locator("canvas").evaluate("(canvas) => canvas.toDataURL()")


def box_pixels(page, camera):
    """Pixels in the colours of boxes: bright, and never quite grey or black."""
    return tile(page, camera).locator("canvas").evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let at = 0; at < data.length; at += 4) {
            const pixel = [data[at], data[at + 1], data[at + 2]];
            const [low, high] = [Math.min(...pixel), Math.max(...pixel)];
            // hsl(… 90% 62%), of which the scene has nothing.
            count += low >= 69 && low <= 73 && high >= 243 && high <= 247;
          }
          return count;
        }"""
    )


def no_sideways_scroll(page):
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= page.viewport_size["width"], f"{wide} px are wider than the screen"


def back(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def log_in(page, arguments):
    page.goto(arguments.url)
    page.get_by_label("Token").fill("not-the-token-at-all")
    page.get_by_role("button", name="Show the cameras").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    no_sideways_scroll(page)
    page.get_by_label("Token").fill(arguments.token)
    page.get_by_role("button", name="Show the cameras").click()
    expect(page.get_by_role("tab", name="Cameras")).to_be_visible()
    assert arguments.token not in page.url, "the token stays in the address"


def live(page):
    has_boxes(page, "ball")
    first = pixels(page, "ball")
    assert box_pixels(page, "ball") > 50, "no box is drawn"
    drawn = int(tile(page, "ball").get_attribute("data-drawn"))
    page.wait_for_function(
        "([tile, drawn]) => Number(tile.dataset.drawn) > drawn + 5 && tile.dataset.own === 'true'",
        arg=[tile(page, "ball").element_handle(), drawn],
    )
    assert pixels(page, "ball") != first, "the picture does not move"
    expect(tile(page, "ball").locator(".state")).to_have_text("live")
    expect(tile(page, "ball").locator(".facts")).to_contain_text("320×192")


def themes(page):
    page.emulate_media(color_scheme="dark")
    dark = back(page)
    page.emulate_media(color_scheme="light")
    light = back(page)
    assert dark != light, dark
    page.locator("#theme").click()
    assert back(page) == dark, "the switch does nothing"
    page.reload()
    assert back(page) == dark, "the choice is forgotten"
    page.locator("#theme").click()


def charts(page):
    page.get_by_role("tab", name="Cameras").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Charts")).to_be_focused()
    plot = page.locator("#charts .chart svg").first
    page.wait_for_function(
        "(plot) => /L/.test(plot.querySelector('path').getAttribute('d') ?? '')",
        arg=plot.element_handle(),
    )
    expect(plot).to_have_attribute("aria-label", re.compile("frames/s: in [0-9]"))


def events(page):
    page.get_by_role("tab", name="Events").click()
    item = page.locator("#event-list li").first
    expect(item).to_contain_text("ball")
    # The newest may not have its picture yet.
    page.wait_for_function(
        "() => [...document.querySelectorAll('#event-list img')].some((image) => image.naturalWidth > 0)"
    )
    page.locator("#event-camera").select_option("green")
    expect(page.locator('#event-list li[data-camera="ball"]').first).to_be_hidden()
    page.locator("#event-camera").select_option("")


def draw(page):
    """A zone with the mouse, a line with the keyboard."""
    page.get_by_role("tab", name="Zones").click()
    page.locator("#editor-camera").select_option("ball")
    canvas = page.locator("#editor-canvas")
    expect(canvas).to_have_attribute("width", "160")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for x, y in [(0.2, 0.2), (0.8, 0.25), (0.7, 0.8)]:
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.locator("#editor-name").fill('the "door" zone')
    page.locator("#editor-classes").fill("0, 1")
    page.locator("#editor-dwell").fill("2.5")
    said = page.locator("#editor-said")
    text = page.locator("#editor-text")
    page.get_by_role("button", name="Check").click()
    expect(said).not_to_be_empty()
    if said.get_attribute("data-ok") != "true":
        # Names may not have such letters; the page says so, in the words of the server.
        page.locator("#editor-name").fill("way-in")
        page.get_by_role("button", name="Check").click()
    expect(said).to_have_attribute("data-ok", "true")
    zone = text.input_value()
    page.get_by_label("line", exact=True).check()
    page.get_by_role("button", name="Clear").click()
    canvas.focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#editor-name").fill("gate")
    page.get_by_role("button", name="Check").click()
    expect(said).to_have_attribute("data-ok", "true")
    return zone + "\n" + text.input_value()


def phone(page):
    page.set_viewport_size(PHONE)
    for name in ["Cameras", "Charts", "Events", "Zones"]:
        page.get_by_role("tab", name=name).click()
        no_sideways_scroll(page)
    page.set_viewport_size(DESK)
    page.get_by_role("tab", name="Cameras").click()


def enlarged(page):
    tile(page, "ball").locator(".view").focus()
    page.keyboard.press("Enter")
    expect(tile(page, "green")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(tile(page, "green")).to_be_visible()


def stalled(page, pid):
    expect(tile(page, "green").locator(".veil")).to_be_hidden()
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(tile(page, "green").locator(".state")).not_to_have_text("live")
        expect(tile(page, "green").locator(".reason")).not_to_be_empty()
        expect(tile(page, "green").locator(".veil")).to_be_visible()
    finally:
        os.kill(pid, signal.SIGCONT)


def lost(page, pid):
    os.kill(pid, signal.SIGKILL)
    link = page.locator("#link")
    expect(link).to_have_attribute("data-state", "lost")
    expect(link).to_have_attribute("data-state", "open")
    has_boxes(page, "ball")


def check(page, arguments):
    log_in(page, arguments)
    wrong = []

    def heard(said):
        # A snapshot that the sink did not take is not there.
        if said.type in ("error", "warning") and "/event/" not in said.location["url"]:
            wrong.append(said.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    live(page)
    themes(page)
    charts(page)
    events(page)
    Path(arguments.toml).write_text(draw(page), encoding="utf-8")
    phone(page)
    enlarged(page)
    stalled(page, arguments.stall)
    wrong += page.evaluate("window.violations")
    assert not wrong, wrong
    lost(page, arguments.sink)


def shots(page, arguments):
    folder = Path(arguments.shots)
    folder.mkdir(parents=True, exist_ok=True)
    page.emulate_media(color_scheme="light")
    page.goto(f"{arguments.url}?token={arguments.token}")
    page.wait_for_timeout(arguments.wait * 1000)
    # A moment in which everybody sees something; a busy machine takes a while.
    page.set_default_timeout(60_000)
    page.wait_for_function(
        "() => [...document.querySelectorAll('#wall article')]"
        ".every((tile) => Number(tile.dataset.boxes) > 0 && tile.dataset.own === 'true')"
    )

    def shot(name):
        page.screenshot(path=str(folder / f"{name}.png"))

    shot("cameras")
    page.get_by_role("tab", name="Charts").click()
    page.wait_for_timeout(1500)
    shot("charts")
    page.get_by_role("tab", name="Events").click()
    page.locator("#event-kind").select_option("enter")
    page.wait_for_timeout(4000)
    shot("events")
    page.get_by_role("tab", name="Zones").click()
    page.wait_for_timeout(1500)
    box = page.locator("#editor-canvas").bounding_box()
    for x, y in [(0.08, 0.55), (0.5, 0.5), (0.62, 0.93), (0.05, 0.95)]:
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.get_by_label("Name").fill("pavement")
    page.get_by_role("button", name="Check").click()
    page.wait_for_timeout(700)
    page.evaluate("scrollTo(0, 0)")
    shot("zones")
    page.emulate_media(color_scheme="dark")
    page.get_by_role("tab", name="Cameras").click()
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(3000)
    shot("phone")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--toml", help="file for what the zone editor writes")
    parser.add_argument("--stall", type=int, help="capture process of the camera `green`")
    parser.add_argument("--sink", type=int, help="process of the page")
    parser.add_argument("--shots", help="folder for pictures of the page")
    parser.add_argument("--wait", type=float, default=5, help="seconds before the first one")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium,
            # As root, as in a container, Chromium has no sandbox; it only sees our page.
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        page = browser.new_context(viewport=DESK).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        page.add_init_script(VIOLATIONS)
        if arguments.shots:
            shots(page, arguments)
        else:
            check(page, arguments)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
