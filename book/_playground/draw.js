// --- drawing

/** An element: attributes, `on...` listeners, then children. Text never becomes HTML. */
function make(tag, attributes = {}, ...children) {
	const svg = ["svg", "rect", "text"].includes(tag);
	const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (name in node && !svg && typeof value !== "string") node[name] = value;
		else if (value !== null) node.setAttribute(name, value);
	}
	node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
	return node;
}
const line = (...children) => make("div", { class: "line" }, ...children);
const quiet = (...children) => make("p", { class: "q" }, ...children);
const dim = (...children) => make("span", { class: "q" }, ...children);
const heading = (text) => make("h3", {}, text);
const button = (text, onclick, more) => make("button", { type: "button", onclick, ...more }, text);
const folded = (title, ...children) => make("details", {}, make("summary", {}, title), ...children);
/** A table: each line is its head and then cells, a [text, kind] or a node. */
const table = (head, lines) => make("table", {}, make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))),
	make("tbody", {}, lines.map(([first, ...cells]) =>
		make("tr", {}, make("th", { scope: "row" }, first), cells.map((one) => (Array.isArray(one) ? make("td", { class: one[1] || "" }, one[0]) : one))))));
/** A cell with a bar, `width` per cent of it. */
const meter = (width, text, kind = "") => make("td", { class: `meter ${kind}` }, make("span", { style: `width:${Math.max(0, Math.min(100, width || 0))}%` }), ` ${text}`);

function select(label, key, options, value, change) {
	return make("label", {}, `${label} `, make("select", { "data-key": key, onchange: (event) => change(event.target.value) },
		options.map(([v, text]) => make("option", { value: String(v), selected: same(v, value) }, text))));
}

/** Rebuild with `change`; the focus stays on the control of the same key, and what is being typed stays as it is. */
function keepFocus(root, change) {
	const old = root.contains(document.activeElement) && document.activeElement.dataset.key ? document.activeElement : null;
	const key = old && old.dataset.key, typed = old && old.matches("input.field") ? [old.value, old.selectionStart] : null;
	change();
	const again = key && root.querySelector(`[data-key="${key}"]`);
	if (!again) return;
	again.focus();
	if (typed) [again.value, again.selectionStart, again.selectionEnd] = [...typed, typed[1]];
}

// The colour maps of lossviz.plots at every eighth, and its other colours.
const SEQUENTIAL = ["#fcfdbf", "#feca8d", "#fd9668", "#f2625d", "#cd4071", "#a02f7f", "#732081", "#471078", "#1a1042"];
const DIVERGING = ["#053061", "#2a71b2", "#6bacd1", "#c2ddec", "#f7f6f6", "#fbccb4", "#e48066", "#ba2832", "#67001f"];
const NAN_COLOR = "#00B3A4";
const AXIS_COLORS = { batch: "#D9E2EC", step: "#D3EBDD", row: "#D3EBDD", col: "#E0EDC4", class: "#FFE0C2" };

/** Fill and text colour of a value, on a scale from `low` to `high`; what lies beyond has the colour of its end. */
function colors(value, [low, high]) {
	const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
	let fill = rgb(NAN_COLOR);
	if (Number.isFinite(value)) {
		const stops = low < 0 ? DIVERGING : SEQUENTIAL, most = Math.max(-low, high) || 1;
		const place = 8 * Math.min(1, Math.max(0, low < 0 ? 0.5 + value / most / 2 : value / most)), k = Math.min(7, Math.floor(place)), b = rgb(stops[k + 1]);
		fill = rgb(stops[k]).map((x, i) => Math.round(x + (b[i] - x) * (place - k)));
	}
	const [r, g, b] = fill.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
	return [`rgb(${fill})`, 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff"];
}

const range = (data) => data.filter(Number.isFinite).reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [0, 0]);

/** A number in a cell. */
function short(x) {
	const text = plain(x, 3);
	return text.length > 6 && Number.isFinite(x) ? x.toExponential(1).replace(".0e", "e").replace("+", "") : text;
}

const coordinates = (shape, i) => shape.map((n, k) => Math.floor(i / count(shape.slice(k + 1))) % n);
const where = (at, axes) => at.map((n, k) => `${axes[k] || `axis ${k}`} ${n}`);
const chip = (name) => make("span", { class: "axis", style: AXIS_COLORS[name] ? `background:${AXIS_COLORS[name]}` : "" }, name);

/** The last axis goes across, the one before it down, others make more planes. */
function planes(shape, axes, draw) {
	const [down, across] = [1, 1, ...shape].slice(-2), outer = shape.slice(0, -2);
	return each(count(outer), (i) => draw(i * down * across, down, across, where(coordinates(outer, i), axes).join(" · "), i));
}

/** What an array is, for a screen reader. */
function inWords(a, unit = "") {
	const n = a.data.length, list = n > 36 ? `${n} numbers from ${short(Math.min(...a.data))} to ${short(Math.max(...a.data))}` : a.data.map(short).join(", ");
	return `${shapeText(a.shape)}: ${list}${unit}`;
}

/** A picture of an array; it is remembered in `pictures`. */
function picture(a, axes, places, pictures, scale = range(a.data), unit = "") {
	const n = a.data.length, W = 48, H = 26, rects = [];
	if (n > MOST) return quiet(`${plain(n)} numbers, too many to draw`);
	pictures.push({ rects, shape: a.shape, places });
	return make("div", { class: "planes", role: "img", "aria-label": inWords(a, unit) },
		planes(a.shape, axes, (start, down, across, caption) => {
			const svg = make("svg", { width: across * W, height: down * H });
			for (let k = 0; k < down * across; k++) {
				const [fill, ink] = colors(a.data[start + k], scale), x = (k % across) * W, y = Math.floor(k / across) * H;
				rects.push(make("rect", { x: x + 1, y: y + 1, width: W - 2, height: H - 2, rx: 3, fill }));
				svg.append(rects.at(-1), make("text", { x: x + W / 2, y: y + 17, fill: ink, "text-anchor": "middle" }, short(a.data[start + k])));
			}
			return make("figure", {}, caption ? make("figcaption", {}, caption) : null, svg);
		}));
}

/** A step in words, as the printed reports have them: "sum over step: (3, 3) → (3,), ÷ 3 = mean"; ratios stay ratios. */
function stepText({ op, text, ratio, divisor }) {
	if (op === "divide" && ratio) return text.replace(`÷ ${plain(divisor)}`, `÷ ${ratio}`);
	if (op === "mean") return `${text.replace("mean over", "sum over").replace(`÷ ${plain(divisor)}`, `÷ ${plain(divisor)} = mean`)}`;
	return op === "weighted mean" ? text.replace("weighted mean over", "sum over") : text;
}
const divisorText = ({ ratio, divisor }) => `÷ ${ratio || plain(divisor)}`;

/** Words with the divisor set off and the axes in their colours. */
function words(text, mark) {
	return text.split(/(÷ [^\s,;]+(?:\u00a0\d+)*|\b(?:batch|step|row|col|class)\b)/).map((piece) => {
		if (piece === mark) return make("b", { class: "div" }, piece);
		return AXIS_COLORS[piece] ? chip(piece) : piece;
	});
}
