// --- the page: book/playground.md has a place for each part

function mountPage() {
	let state, chosen = 0, pictures = [], timer, lesson = null, asking = false, done = new Set(), cover;
	const place = (name) => {
		const node = document.querySelector(`[data-lossviz="${name}"]`) || make("div");
		node.className = "lvp";
		return node;
	};
	const status = (kind) => make("p", { class: kind, role: "status" });
	const alertBox = make("p", { class: "alert", role: "alert" }), note = status("note"), said = status("q said");
	const bar = makeNumber(), code = make("code"), address = make("input", { class: "field", readOnly: true, hidden: true, "aria-label": "to copy by hand" });
	const is = (one) => write(read(one)) === write(state);
	const board = makeBoard({ alertBox, changed: (text, from, cell) => edited({ words: text, from, silent: cell === null || cell === undefined ? "" : board.silenceOf(cell) }, false) });
	const tiles = makeTiles("lvp-regime", REGIMES, (regime) => change(`${state.regime} → ${regime}`, () => { state.regime = regime; }, false), "The same arrays in the rules of each Keras. Choose the one to follow:");
	const presets = PRESETS.map((one) => button(one.name, () => open(one.state)));
	const traps = GROUPS.map((name, kind) => make("div", { class: "line traps", role: "group", "aria-label": name }, dim(name), presets.filter((_, k) => PRESETS[k].kind === kind)));
	const [lessonPart, rules, list, paying, four, batch] = ["lessons", "rules", "list", "paying", "four", "batches"].map(place);
	const top = place("bar");
	top.classList.add("top");
	top.replaceChildren(bar.number, bar.effect, line(button("Reset", () => ask(0)), button("Copy link", () => copy(location.href.split("#")[0] + write(state), "Link copied."))), bar.equation, alertBox, address, said);
	place("board").replaceChildren(tiles.node, board.node);
	place("traps").replaceChildren(...traps, note);
	place("code").replaceChildren(make("pre", { tabIndex: 0 }, code), button("Copy code", () => copy(code.textContent, "Code copied.")));
	board.node.addEventListener("path", ({ detail }) => mark(detail));

	/** Run `todo`, which changes the state; `anew` where shapes may have changed. */
	function change(text, todo, anew = true) {
		const from = compare(state).found[state.regime].value;
		todo();
		edited({ words: text, from }, anew);
	}

	function edited(what, anew) {
		const other = is(lesson === null ? write(state) : LESSONS[lesson].start) ? false : asking;
		if (other) { asking = false; lessons(); }
		update(what, anew);
	}

	function remember() {
		clearTimeout(timer);
		history.replaceState(null, "", write(state));
	}

	function open(one) {
		[lesson, asking] = [null, false];
		show(read(one));
		remember();
	}

	function ask(k) {
		[lesson, asking] = [k, true];
		show(read(LESSONS[k].start));
		remember();
	}

	function show(next) {
		state = next;
		chosen = 0;
		alertBox.textContent = said.textContent = "";
		note.textContent = asking ? "" : (PRESETS.find((one) => is(one.state)) || { notice: "" }).notice;
		lessons();
		update({}, true, false);
	}

	/** The state in the address, or the first question. An address of a heading is none, and leaves the page as it is. */
	function load(first) {
		const { hash } = location;
		let message = "";
		try {
			if (hash.startsWith(START)) {
				const next = read(hash);
				[lesson, asking] = [null, false];
				return show(next);
			}
			if (hash.length > 1 && !document.getElementById(decodeURIComponent(hash.slice(1)))) message = `it does not begin with ${START}`;
		} catch (error) {
			message = error.message;
		}
		if (first || message || hash.length < 2) {
			[lesson, asking] = [0, true];
			show(read(LESSONS[0].start));
		}
		if (message) alertBox.textContent = `The state in this address can not be read: ${message}. The first question is shown instead.`;
	}

	async function copy(text, message) {
		remember();
		try {
			await navigator.clipboard.writeText(text);
			said.textContent = message;
		} catch {
			address.hidden = false;
			address.value = text;
			address.select();
			said.textContent = "Copy it from here.";
		}
	}

	/** The path of lessons, and the one that is open. */
	function lessons() {
		const tabs = make("ol", { class: "path" }, LESSONS.map((one, k) => make("li", {}, button([make("b", {}, done.has(k) ? "✓" : String(k + 1)), ` ${one.name}`], () => ask(k), { "data-key": `lesson${k}`, "aria-pressed": String(k === lesson) }))));
		if (lesson === null) return keepFocus(lessonPart, () => lessonPart.replaceChildren(tabs, quiet("Choose a question, or go on with the arrays below.")));
		const one = LESSONS[lesson], verdict = status("verdict"), goalBox = status("reached"), k = lesson;
		const options = one.options.map((text, o) => make("label", { class: "option" }, make("input", { type: "radio", name: `lvp-guess${k}`, value: String(o) }), ` ${text}`));
		const guess = button("That is my guess", () => {
			const at = options.findIndex((label) => label.querySelector("input").checked);
			if (at < 0) { verdict.textContent = "Choose one first."; return; }
			reveal(at);
		}, { class: "strong" });
		const after = make("div", { hidden: true }), skip = button("Show me", () => reveal(null));
		function reveal(at) {
			const right = at === one.right;
			verdict.textContent = `${at === null ? "" : right ? "Right. " : "No. "}It is ${one.options[one.right].split(":")[0]}.`;
			verdict.className = `verdict ${at === null ? "" : right ? "good" : "bad"}`;
			after.hidden = false;
			guess.hidden = skip.hidden = true;
			verdict.tabIndex = -1; // the button that had the focus is gone
			verdict.focus();
			done.add(k);
			tabs.children[k].querySelector("b").textContent = "✓";
			asking = false;
			note.textContent = "";
			update({}, true, false);
		}
		after.append(make("p", {}, one.reveal), make("p", {}, make("b", {}, "Now you: "), one.task), goalBox,
			...(k + 1 < LESSONS.length ? [button(`Next question: ${LESSONS[k + 1].name}`, () => { ask(k + 1); lessonPart.querySelector("[aria-pressed=true]").focus(); }, { "data-key": "nextlesson" })] : []));
		const answered = !asking;
		keepFocus(lessonPart, () => lessonPart.replaceChildren(tabs, make("fieldset", { class: "lesson" }, make("legend", {}, make("span", { class: "q" }, `Question ${k + 1} of ${LESSONS.length}`)), make("p", { class: "ask" }, one.ask), options, line(guess, skip), verdict, after)));
		if (answered) { after.hidden = false; guess.hidden = skip.hidden = true; }
	}

	/** The controls of shapes and rules. */
	function controls() {
		const output = state.outputs[chosen], many = state.outputs.length > 1, of = many ? ` of output ${chosen + 1}` : "", own = Object.fromEntries(output.axes);
		const tabs = !many ? [] : state.outputs.map((_, k) => button(`Output ${k + 1}`, () => change(`output ${k + 1} is shown`, () => { chosen = k; }), { "data-key": `tab${k}`, "aria-pressed": String(k === chosen) }));
		const more = state.outputs.length < OUTPUTS ? [button("Add an output", () => change(`output ${state.outputs.length + 1} is added`, addOutput), { "data-key": "add" })] : [];
		if (many) more.push(button(`Remove output ${chosen + 1}`, () => change(`output ${chosen + 1} is removed`, () => { state.outputs.splice(chosen, 1); chosen = 0; }), { "data-key": "remove" }));
		const axes = AXES.map(([name, , most]) => {
			const shown = name === "row" && !own.col ? "step" : name, size = own[shown] || 0;
			return select(shown, name, each(most + 1, (n) => [n, n || "none"]), size, (n) => change(`${shown}: ${size || "none"} → ${Number(n) || "none"}`, () => setAxis(name, Number(n))));
		});
		keepFocus(rules, () => rules.replaceChildren(
			make("div", { class: "line", role: "group", "aria-label": "outputs" }, tabs, more),
			make("div", { class: "line", role: "group", "aria-label": `axes${of}` }, axes, hasClass(output) ? select("over class", "fn", FUNCTIONS, output.fn, (one) => change(`${output.fn} → ${one} over class`, () => { output.fn = one; })) : null),
			shapeControl("Sample weights", "w", output, alertBox, change), shapeControl("Mask", "m", output, alertBox, change),
			line(select("reduction", "reduction", ALL_REDUCTIONS.map((one) => [one, one]), state.reduction, (one) => change(`reduction: ${state.reduction} → ${one}`, () => { state.reduction = one; }, false)),
				make("label", {}, `loss weight${of} `, lossWeightField(output, `loss weight${of}`, alertBox, (text, todo) => change(text, todo, false))))));
	}

	function addOutput() {
		const axes = state.outputs[0].axes.filter(([name]) => name === "batch");
		chosen = state.outputs.push({ axes, fn: "mean", e: fill(axes.map((axis) => axis[1]), 1), w: null, m: null, lw: null }) - 1;
	}

	function setAxis(name, size) {
		for (const output of name === "batch" ? state.outputs : [state.outputs[chosen]]) {
			const plainName = (axis) => (axis === "step" ? "row" : axis);
			const before = names(output).map(plainName), old = usual(scoreOf(output).score.shape);
			const wanted = { ...Object.fromEntries(output.axes.map(([axis, n]) => [plainName(axis), n])), [name]: size };
			const next = AXES.flatMap(([axis]) => (wanted[axis] ? [[axis, wanted[axis]]] : []));
			output.e = remap(output.e, before, next.map(([axis]) => axis), next.map(([, n]) => n));
			output.axes = named(next);
			const now = usual(scoreOf(output).score.shape);
			for (const key of ["w", "m"]) { // weights of a usual shape go along
				const kind = output[key] && old.find(([, shape]) => same(shape, output[key].shape));
				const found = kind && now.find(([text]) => text === kind[0]);
				if (found) output[key] = reshaped(output[key], found[1]);
			}
		}
	}

	/** Outline what an element has become in every step. */
	function mark(i) {
		const at = i === null ? null : coordinates(state.outputs[chosen].e.shape, i);
		for (const { rects, shape, places } of pictures) {
			rects.forEach((rect, r) => rect.classList.toggle("on", Boolean(at) && coordinates(shape, r).every((n, k) => places[k] === null || n === at[places[k]])));
		}
	}

	function update(what, anew, save = true) {
		const { found, reference } = compare(state), mine = found[state.regime], part = mine.parts[chosen], output = state.outputs[chosen];
		const kind = (one) => (one.refusal ? "bad" : differ(one.value, found[reference].value) ? "differs" : "");
		tiles.show(state, found, reference, asking);
		bar.show(state, mine, chosen, { ...what, hidden: asking });
		board.show(output, part, mine.value, { anew, hidden: asking });
		if (anew) controls();
		presets.forEach((one, k) => one.setAttribute("aria-pressed", String(!asking && is(PRESETS[k].state))));
		code.textContent = pythonCode(state);
		const goalBox = lessonPart.querySelector(".reached");
		if (goalBox) {
			const there = !asking && is(LESSONS[lesson].goal) ? `Done: ${resultText(mine)}.` : "";
			if (goalBox.textContent !== there) goalBox.textContent = there;
		}
		pictures = [];
		const covered = () => quiet("Covered until you have answered the question above.");
		const python = code.parentNode.parentNode;
		python.hidden = asking;
		if (!cover) python.before(cover = make("div", { class: "lvp" }, covered()));
		cover.hidden = !asking;
		list.hidden = asking;
		if (asking) for (const one of [paying, four, batch]) one.replaceChildren(covered());
		else {
			list.replaceChildren(folded(`Every step in ${state.regime}${state.outputs.length > 1 ? `, output ${chosen + 1}` : ""}, one below the other`, steps(mine, part, output)));
			paying.replaceChildren(...(mine.value === undefined ? [quiet("There is no number to share.")] : shareOf(mine, output)));
			const known = REGIMES.flatMap((regime) => found[regime].parts.flatMap(({ steps = [] }) => steps)), ratios = (text) => known.reduce((all, one) => all.replace(one.text, stepText(one)), text);
			four.replaceChildren(table(["regime", "number", reference ? `first step that differs from ${reference}` : "why"], REGIMES.map((regime) => {
				const one = found[regime];
				return [regime, [resultText(one), kind(one)], [one.refusal || ratios(one.difference) || (regime === reference ? "" : "none")]];
			})));
			batch.replaceChildren(...batches());
		}
		clearTimeout(timer);
		if (save) timer = setTimeout(remember, 200);
	}

	function steps(mine, part, output) {
		const { score, axes, step } = scoreOf(output), scale = scaleOf(frames(output, part));
		const add = (one, values, places) => {
			const [a, b] = [count(one.inputShape), count(one.outputShape)];
			return make("li", {}, make("p", {}, words(stepText(one), one.divisor === null ? "" : divisorText(one)), dim(a === b ? "" : ` ${plain(a)} → ${plain(b)} numbers`)),
				values && picture(values, places.map((k) => axes[k]), places, pictures, scale));
		};
		const lines = step ? [add(step, score, order(axes))] : [];
		if (part.refusal) lines.push(make("li", { class: "bad" }, part.refusal));
		else lines.push(...part.steps.slice(step ? 1 : 0).map((one) => add(one, one.values, one.places)));
		if (mine.parts.length > 1 && mine.value !== undefined) {
			lines.push(make("li", {}, `the outputs are added: ${mine.parts.map((one) => plain(one.value)).join(" + ")} = ${plain(mine.value)}`));
		}
		return make("ol", { class: "steps" }, lines);
	}

	/** The share of each element in the number, and its sums along each axis. */
	function shareOf(mine, output) {
		const share = shares(state, mine, chosen), axes = names(output), percent = (x) => (100 * x) / mine.value;
		const bars = axes.map((name, axis) => {
			const sums = sumOver(share, order(axes).filter((k) => k !== axis)).data, most = Math.max(...range(sums.map(Math.abs))) || 1;
			return make("table", { class: "by" }, make("tbody", {}, sums.map((x, k) => make("tr", {}, make("th", { scope: "row" }, k ? String(k) : [chip(name), " 0"]),
				meter((40 * Math.abs(x)) / most, plain(x, 4) + (Number.isFinite(percent(x)) ? `, ${plain(percent(x), 3)} %` : ""), x < 0 ? "less" : "")))));
		});
		const whole = share.data.every((x) => Number.isFinite(percent(x)));
		return [quiet(`The share of each element in the number${whole ? ", in per cent" : ""}. They add up to ${whole && state.outputs.length === 1 ? "100" : "what this output is of it"}.`),
			picture(whole ? map(share, percent) : share, axes, order(axes), pictures, undefined, whole ? " per cent" : ""), make("div", { class: "planes" }, bars)];
	}

	/** What `evaluate` shows if the same samples come in smaller batches. */
	function batches() {
		const n = batchOf(state.outputs[0]) || 0, values = each(n, (k) => REGIMES.map((regime) => epoch(state, regime, k + 1)));
		if (n < 2 || values.flat().every((x) => typeof x !== "number")) return [quiet("These arrays cannot be cut into batches: that takes two samples, and weights and masks with one entry per sample.")];
		return [quiet("What evaluate shows: the mean of the batches' losses, each counted as often as it has samples."),
			table(["batch size", ...REGIMES], values.map((row, k) => [String(k + 1), ...row.map((x, r) => {
				return [x === null ? "–" : x === "refused" ? x : plain(x), differ(x, values[n - 1][r]) ? "differs" : ""];
			})]))];
	}

	// below the header of the theme, which is higher on narrow windows
	const header = document.querySelector(".bd-header-article"), fit = () => top.style.setProperty("--lvp-top", `${header ? header.offsetHeight : 0}px`);
	addEventListener("resize", fit);
	fit();
	addEventListener("hashchange", () => load(false));
	load(true);
}
