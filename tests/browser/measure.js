// What a page looks like to a reader now: called after the viewport, the colour scheme or the medium was set.
() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {  // any CSS colour, as the browser itself paints it
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {  // WCAG 2.2
    const linear = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const background = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = rgba(getComputedStyle(one).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const name = (element) => {
    const box = element.getBoundingClientRect();
    const words = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
    return `<${element.tagName.toLowerCase()}> “${words}” at ${Math.round(box.left)} to ${Math.round(box.right)} px`;
  };
  const all = [...document.body.querySelectorAll("*")].filter((one) => one.checkVisibility());
  const texts = all.filter((one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  const contrasts = texts.map((one) => {
    const [ink, paper] = [luminance(rgba(getComputedStyle(one).color)), luminance(background(one))];
    return { ratio: (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), where: name(one) };
  });
  const scrolls = (element) => element && (/auto|scroll/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  const width = document.documentElement.clientWidth;
  const wide = all.filter((one) => !scrolls(one) && one.getBoundingClientRect().right > width + 1);
  const shut = [...document.querySelectorAll("details > :not(summary)")].filter((one) => !one.checkVisibility());
  const summaries = [...document.querySelectorAll("table.short")];  // mean and worst of every method
  const scrolled = summaries.filter((one) => {
    const box = one.getBoundingClientRect();
    return box.right > width + 1 || box.left < 0 || one.parentElement.scrollWidth > one.parentElement.clientWidth + 1;
  });
  return {
    scrolled: scrolled.map(name),
    texts: texts.length,
    words: document.body.innerText.split(/\s+/).length,
    weakest: contrasts.reduce((a, b) => (b.ratio < a.ratio ? b : a), { ratio: 21, where: "" }),
    paper: luminance(background(document.body)),
    overflow: document.documentElement.scrollWidth - width,
    wide: wide.map(name),
    cut: all.filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible").map(name),
    shut: shut.map(name),
    images: [...document.images].map((one) => ({ width: one.naturalWidth, height: one.naturalHeight, alt: one.alt })),
  };
}
