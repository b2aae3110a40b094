#!/usr/bin/env python3
"""Opens a report in headless chromium: no console error, no request, every picture draws, hostile text does no harm.

    report_in_browser.py KDACHECK_PROGRAM [SCREENSHOT_FOLDER [PAGE_TO_PHOTOGRAPH]]

Exit 0: all hold; 1: one does not; 77: not run, for want of chromium. Talks the DevTools protocol over a pipe.
"""
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

SECONDS = 60
REPORTS = pathlib.Path(__file__).resolve().parent.parent
PICTURES = 5  # stability, length, position, and one per output
MEASURED = 6  # two of drift, two of spectra, detection limits, performance
HISTORY = 3
HOSTILE = "</script><script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'>"


class Browser:
    """A chromium and one page of it."""

    def __init__(self, program, profile):
        command_read, self.to = os.pipe()
        self.back, answer_write = os.pipe()

        def place():  # the protocol's pipes are descriptors 3 and 4
            low_read, low_write = fcntl.fcntl(command_read, fcntl.F_DUPFD, 10), fcntl.fcntl(answer_write, fcntl.F_DUPFD, 10)
            os.dup2(low_read, 3)
            os.dup2(low_write, 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "--window-size=1280,1000"],
            preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(command_read)
        os.close(answer_write)
        self.number, self.buffer, self.events, self.session = 0, b"", [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(domain + ".enable")

    def read(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.back], [], [], max(0, deadline - time.monotonic()))
            got = os.read(self.back, 1 << 20) if ready else b""
            if not got:
                raise TimeoutError("chromium does not answer")
            self.buffer += got
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.to, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            message = self.read(deadline)
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, path):
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if self.value("document.readyState === 'complete'"):
                time.sleep(0.3)
                return
            time.sleep(0.05)
        raise TimeoutError("the page does not load")

    def value(self, expression):
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)


def complaints(browser, page):
    """What the browser has said against the page since it was opened."""
    for event in browser.events:
        what, how = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            yield "exception: " + json.dumps(how["exceptionDetails"])[:400]
        elif what == "Runtime.consoleAPICalled" and how["type"] in ("error", "warning", "assert"):
            yield "console: " + json.dumps(how["args"])[:400]
        elif what == "Log.entryAdded" and how["entry"]["level"] in ("error", "warning"):
            yield "log: " + how["entry"]["text"]
        elif what == "Network.requestWillBeSent":
            url = how["request"]["url"]
            if url != page.as_uri() and not url.startswith("data:"):
                yield "request: " + url


# Colours of a canvas: one that nobody drew on has a single one.
COLOURS = """[...document.querySelectorAll('canvas')].map((canvas) => {
  const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return new Set(pixels).size; })"""
# Marks inside the frame of each picture, and rows of the table beside it.
MARKS = "charts.map((picture) => picture.chart().data.datasets.reduce((sum, set) => sum + set.data.length, 0))"
ROWS = "[...document.querySelectorAll('.picture')].map((frame) => frame.parentElement.querySelectorAll('details tbody tr').length)"
LINKS = "[...document.querySelectorAll('nav a')].filter((link) => !document.querySelector(link.getAttribute('href'))).length"
HOVER = """(() => { const chart = charts[0].chart(), mark = chart.getDatasetMeta(0).data[0], box = chart.canvas.getBoundingClientRect();
  chart.canvas.dispatchEvent(new MouseEvent('mousemove', {clientX: box.left + mark.x, clientY: box.top + mark.y, bubbles: true})); })()"""
TOKEN = "document.querySelector('#phase .token').textContent"


BUTTONS = "[...document.querySelectorAll('button')].filter((button) => button.textContent === 'save PNG')"
# Whether a PNG is what the picture of the nth button shows: as large, every opaque pixel the canvas', every empty one the page's paper.
SAVED = r"""(async (button, data) => {
  const image = new Image(), canvas = button.parentElement.previousElementSibling.querySelector("canvas"), {width, height} = canvas;
  const pixels = (picture) => {
    const sheet = document.createElement("canvas");
    sheet.width = width; sheet.height = height;
    sheet.getContext("2d").drawImage(picture, 0, 0);
    return sheet.getContext("2d").getImageData(0, 0, width, height).data;
  };
  image.src = "data:image/png;base64," + data;
  await image.decode();
  if (image.naturalWidth !== width || image.naturalHeight !== height) return "of another size";
  const paper = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number), saved = pixels(image), shown = pixels(canvas);
  let empty = 0, inked = 0;
  for (let i = 0; i < shown.length; i += 4) {
    const due = shown[i + 3] === 255 ? shown.subarray(i, i + 3) : shown[i + 3] === 0 ? paper : null;
    if (due) shown[i + 3] ? ++inked : ++empty;
    if (saved[i + 3] !== 255 || (due && due.some((colour, c) => saved[i + c] !== colour))) return "another picture at pixel " + i / 4;
  }
  return empty > 1000 && inked > 1000 ? "right" : "hardly a picture: " + inked + " pixels";
})"""


def check_downloads(browser, page, check, folder):
    """Every button that saves a picture does, in light and in dark, under a name of its own."""
    browser.open(page)
    folder.mkdir()
    browser.ask("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    count = browser.value(f"{BUTTONS}.length")
    check(count == browser.value("charts.length") and count > 0, f"every picture can be saved: {count}")
    for scheme in ("light", "dark"):
        browser.ask("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.3)
        names = set()
        for at in range(count):
            time.sleep(0.15)  # the browser drops what a page asks it to save beyond ten files a second
            browser.value(f"{BUTTONS}[{at}].click()")
            deadline = time.monotonic() + 10
            # until it is whole, a file lies there empty, under its name, beside NAME.crdownload
            while (
                not (arrived := [file for file in folder.glob("*.png") if file.stat().st_size]) or list(folder.glob("*.crdownload"))
            ) and time.monotonic() < deadline:
                time.sleep(0.02)
            check(len(arrived) == 1, f"picture {at} arrives as one file: {arrived}")
            for file in arrived:
                said = browser.value(f"{SAVED}({BUTTONS}[{at}], '{base64.b64encode(file.read_bytes()).decode()}')")
                check(said == "right", f"{file.name} saved in {scheme} mode is the picture: {said}")
                names.add(file.name)
                file.unlink()
        check(len(names) == count, f"every picture has a name of its own: {sorted(names)}")
    browser.ask("Emulation.setEmulatedMedia", media="", features=[])
    for complaint in complaints(browser, page):
        check(False, complaint)


def check_page(browser, page, check, pictures):
    browser.open(page)
    history = browser.value("document.getElementById('phase') === null")
    for complaint in complaints(browser, page):
        check(False, complaint)
    check(browser.value("document.documentElement.dataset.drawn") == str(pictures), f"{pictures} pictures are announced")
    check(browser.value("window.harmed") is None, "no text of the data runs as a script")
    check(browser.value(LINKS) == 0, "every link of the page has its goal")
    check(browser.value("document.querySelectorAll('nav a').length") > 3, "the page has links")
    for at in range(browser.value("document.querySelectorAll('nav a').length")):
        link = f"document.querySelectorAll('nav a')[{at}]"
        browser.value(f"{link}.click()")
        check(browser.value(f"location.hash === {link}.getAttribute('href')"), f"link {at} goes where it says")
    if pictures:
        colours, marks, rows = browser.value(COLOURS), browser.value(MARKS), browser.value(ROWS)
        check(len(colours) == pictures and min(colours) > 8, f"every picture is drawn on: {colours}")
        check(min(marks) > 0, f"every picture has marks: {marks}")
        check(len(rows) == pictures and min(rows) > 0, f"every picture has a table with rows: {rows}")
        if history:
            return
        browser.value(HOVER)
        time.sleep(0.2)
        check(browser.value(TOKEN).startswith("./kdacheck replay '"), "pointing at a mark shows its replay command")
        choices = browser.value("document.querySelectorAll('#phase select option').length")
        before = browser.value(MARKS)[0]
        browser.value("choices[0].value = '0'; choices[0].dispatchEvent(new Event('change'))")
        after = browser.value(MARKS)[0]
        check(after < before if choices > 2 else after == before, f"choosing a kernel leaves only its marks: {before} to {after}")
        browser.value("choices[0].value = '-1'; choices[0].dispatchEvent(new Event('change'))")
        for complaint in complaints(browser, page):
            check(False, complaint)


def check_print(browser, page, check):
    """On paper every table is open, also those that the reader had closed, and letters of pictures are larger."""
    browser.open(page)
    closed = "[...document.querySelectorAll('details:not([open])')].length"
    browser.value("document.querySelectorAll('details').forEach((each) => { each.open = false; })")
    before = browser.value(closed)
    browser.ask("Emulation.setEmulatedMedia", media="print", features=[])
    browser.value("dispatchEvent(new Event('beforeprint'))")
    check(before > 0 and browser.value(closed) == 0, "what is closed is printed open")
    check(browser.value("charts[0].chart().options.font.size") > 14, "letters of printed pictures are larger")
    browser.ask("Emulation.setEmulatedMedia", media="", features=[])
    browser.value("dispatchEvent(new Event('afterprint'))")
    check(browser.value(closed) == before, "and closed again afterwards")
    check(browser.value("charts[0].chart().options.font.size") == 12, "and as large as before")


def photograph(browser, folder, what):
    for name, media, scheme in (("light", "screen", "light"), ("dark", "screen", "dark"), ("print", "print", "light")):
        browser.ask("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.5)
        image = browser.ask("Page.captureScreenshot", captureBeyondViewport=True)
        (folder / f"{what}-{name}.png").write_bytes(base64.b64decode(image["data"]))


def hostile_copy(verify, run, goal):
    """The same run with markup in its texts, one failure that is not finite, and one that crashed; `verify` puts its results together."""
    shutil.copytree(run, goal)
    cases = [json.loads(line) for line in (goal / "cases.jsonl").read_text().splitlines()]
    first = next(case for case in cases if "place" in case)
    second = next(case for case in cases if "place" in case and case["kernel"] == first["kernel"] and case["regime"] != first["regime"])
    first.update(verdict="failed_proved", bound_util="Infinity", detail=HOSTILE)
    second.update(verdict="crashed", detail=HOSTILE)
    (goal / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    resumed = subprocess.run([*verify, "--out", goal, "--resume"], capture_output=True, text=True)
    assert resumed.returncode == 1, (resumed.returncode, resumed.stdout, resumed.stderr)
    report = json.loads((goal / "report.json").read_text())
    assert report["summary"]["crashed"] == 1 and report["summary"]["cases"] == len(cases), report["summary"]
    report["context"]["host"] = report["context"]["command"] = HOSTILE
    (goal / "report.json").write_text(json.dumps(report))
    return goal


def main(arguments):
    kdacheck = pathlib.Path(arguments[0]).resolve()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        print("not run: no chromium")
        return 77
    failures = []

    def check(holds, sentence):
        if not holds:
            failures.append(sentence)
            print("FAILED:", sentence)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        place = pathlib.Path(place)
        run = place / "run"
        selection = ["--kernel", "cpu.chunk16.fp32", "--kernel", "cpu.chunk64.bf16", "--property", "agrees-with-the-oracle",
                     "--property", "absent-*", "--direction", "forward", "--shrink-seconds", "0"]
        verify = [kdacheck, "verify", *selection]
        verified = subprocess.run([*verify, "--out", run], capture_output=True, text=True)
        if verified.returncode != 0:
            print("FAILED: the run to be reported ended with status", verified.returncode, verified.stdout, verified.stderr)
            return 1
        hostile, stopped = hostile_copy(verify, run, place / "hostile"), shutil.copytree(run, place / "stopped")
        report = json.loads((stopped / "report.json").read_text())
        (stopped / "report.json").write_text(json.dumps(report | {"complete": False}))
        subprocess.run([kdacheck, "measure", "--kernel", "cpu.chunk64.bf16", "--longest", "1024", "--out", run], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([kdacheck, "bench", "--kernel", "cpu.chunk64.bf16", "--repeats", "1", "--out", run], check=True, stdout=subprocess.DEVNULL)
        power = json.loads((REPORTS / "power" / "power.json").read_text())  # as gate-power measured them
        for limit in power["limits"]:
            limit["contract"] = limit["label"] = HOSTILE + limit["label"]
        (run / "power.json").write_text(json.dumps(power))
        for folder in (run, hostile):
            subprocess.run([kdacheck, "report", folder], check=True)
        subprocess.run([kdacheck, "report", "--history", hostile, run, stopped, "--out", place / "history.html"], check=True, stdout=subprocess.DEVNULL)
        browser = Browser(chromium, str(place / "profile"))
        try:
            check_page(browser, run / "report.html", check, PICTURES + MEASURED)
            tokens = browser.value("charts.find((picture) => picture.id === 'drift').chart().data.datasets.flatMap((set) => set.data).filter((mark) => !mark.replay).length")
            check(tokens == 0, "every mark of the drift has its replay token")
            check_downloads(browser, run / "report.html", check, place / "saved")
            check_print(browser, run / "report.html", check)
            check_page(browser, place / "history.html", check, HISTORY)
            check(browser.value("document.getElementById('failures').textContent").count("2.00") == 0, "failing cases are counted in whole numbers")
            for marked in ("document.getElementById('runs').textContent", "JSON.stringify(charts[0].chart().data.labels)"):
                check(browser.value(marked).count("(stopped early)") == 1, "the run that was stopped is marked, and it alone")
            if len(arguments) > 1:
                for page in (place / "history.html", pathlib.Path(arguments[2]) if len(arguments) > 2 else run / "report.html"):
                    browser.open(page)
                    photograph(browser, pathlib.Path(arguments[1]), page.stem)
                browser.ask("Emulation.setEmulatedMedia", media="", features=[])
            check_page(browser, hostile / "report.html", check, PICTURES)
            check(browser.value("document.querySelectorAll('.failure').length") == 2, "both failures are listed")
            check(browser.value("document.querySelector('.failure').textContent").find("onerror=") > 0, "markup in a text is shown as it stands")
            check(browser.value("charts[0].chart().data.datasets[1].data.length") == 2, "the case that is not finite and the one that crashed are marked")
            check(browser.value("charts[0].chart().getSortedVisibleDatasetMetas()[0].label") == "non-finite", "what is not finite lies on top")
            heads = browser.value("[...document.querySelectorAll('.failure > p:first-child')].map((each) => each.textContent).join('\\n')")
            check(sorted(head.endswith(", error / bound inf)") for head in heads.split("\n")) == [False, True] and "bound 0" not in heads, f"a crash has no figure: {heads}")
        finally:
            browser.close()
    print("failed" if failures else "all hold")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
