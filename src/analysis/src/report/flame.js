// Lays the boxes of `flame` out for the window and for what is zoomed into, and marks
// what is looked for. Names come from the titles, so they are there once.
(() => {
  const svg = document.documentElement.tagName === "svg" ? document.documentElement
    : document.currentScript.ownerSVGElement;
  const calls = [...svg.querySelectorAll("#calls g")].map(g => ({
    g, rect: g.children[1], text: g.children[2], title: g.children[0].textContent,
    x: +g.dataset.x, w: +g.dataset.w, level: +g.dataset.l }));
  const here = svg.querySelector("#here");
  const height = +svg.getAttribute("height");
  let zoom = calls[0], wanted = "";
  function layout() {
    const width = svg.getBoundingClientRect().width || 1200;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const one of calls) {
      const above = one.level < zoom.level
        && one.x <= zoom.x + 1e-9 && one.x + one.w >= zoom.x + zoom.w - 1e-9;
      const inside = one.level >= zoom.level
        && one.x >= zoom.x - 1e-9 && one.x + one.w <= zoom.x + zoom.w + 1e-9;
      const x = above ? 0 : (one.x - zoom.x) / zoom.w * width;
      const w = above ? width : one.w / zoom.w * width;
      const shown = above || inside && w >= 0.25;
      one.g.style.display = shown ? "" : "none";
      if (!shown) continue;
      one.rect.setAttribute("x", x);
      one.rect.setAttribute("width", w);
      one.rect.classList.toggle("aside", above);
      one.text.setAttribute("x", x + 3);
      const name = one.title.split("\n")[0];
      const room = Math.floor((w - 6) / 7);
      one.text.textContent = room < 3 ? ""
        : name.length <= room ? name : name.slice(0, room - 1) + "…";
      one.rect.classList.toggle("found", wanted !== "" && name.includes(wanted));
    }
  }
  for (const one of calls) {
    one.g.addEventListener("click", () => { zoom = one; layout(); });
    one.g.addEventListener("mouseover", () => {
      here.textContent = one.title.replace(/\n/g, "   ");
    });
  }
  addEventListener("keydown", event => {
    if (event.key === "Escape") { zoom = calls[0]; wanted = ""; layout(); }
    if (event.key === "/") {
      event.preventDefault();
      wanted = prompt("Find a function or file", wanted) || "";
      const count = calls.filter(one => wanted && one.title.split("\n")[0].includes(wanted)).length;
      here.textContent = wanted ? `${count} calls with ${wanted}` : " ";
      layout();
    }
  });
  svg.setAttribute("width", "100%");
  addEventListener("resize", layout);
  layout();
})();
