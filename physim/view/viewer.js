"use strict";
// Shows a scene on a 2-D canvas: convex meshes under a perspective camera, far faces first.

function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// Row-major 3x3 matrix of a quaternion (w, x, y, z), which need not be of unit length.
function rotation(w, x, y, z) {
  const s = 2 / (w * w + x * x + y * y + z * z);
  return [
    1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y),
    s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x),
    s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y),
  ];
}

function apply(m, x, y, z, p) {
  return [
    m[0] * x + m[1] * y + m[2] * z + p[0],
    m[3] * x + m[4] * y + m[5] * z + p[1],
    m[6] * x + m[7] * y + m[8] * z + p[2],
  ];
}

// Convex hull of points in the plane, counter-clockwise (monotone chain).
function hull(points) {
  const sorted = points.slice().sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const turn = (o, a, b) => (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
  const half = (list) => {
    const chain = [];
    for (const p of list) {
      while (chain.length > 1 && turn(chain[chain.length - 2], chain[chain.length - 1], p) <= 0) {
        chain.pop();
      }
      chain.push(p);
    }
    chain.pop();
    return chain;
  };
  return half(sorted).concat(half(sorted.reverse()));
}

const NEAR = 0.02;
const LIGHT = [0.32, -0.42, 0.85];

class Camera {
  constructor(width, height) {
    this.azimuth = -1.15;
    this.elevation = 0.28;
    this.distance = 4;
    this.target = [0, 0, 0.5];
    this.resize(width, height);
  }

  resize(width, height) {
    this.width = width;
    this.height = height;
    this.focal = 1.35 * Math.min(width, 1.4 * height);
  }

  // Axes of the camera in the world, to be called once per frame.
  aim() {
    const [ca, sa] = [Math.cos(this.azimuth), Math.sin(this.azimuth)];
    const [ce, se] = [Math.cos(this.elevation), Math.sin(this.elevation)];
    this.back = [ce * ca, ce * sa, se];
    this.right = [-sa, ca, 0];
    this.up = [-se * ca, -se * sa, ce];
    this.eye = this.target.map((t, i) => t + this.distance * this.back[i]);
  }

  // Camera coordinates: right, up, depth in front of the eye.
  view(p) {
    const d = [p[0] - this.eye[0], p[1] - this.eye[1], p[2] - this.eye[2]];
    const dot = (a) => a[0] * d[0] + a[1] * d[1] + a[2] * d[2];
    return [dot(this.right), dot(this.up), -dot(this.back)];
  }

  screen(v) {
    const scale = this.focal / v[2];
    return [0.5 * this.width + scale * v[0], 0.47 * this.height - scale * v[1]];
  }
}

class Viewer {
  constructor(context, scene, width, height) {
    this.context = context;
    this.camera = new Camera(width, height);
    this.follow = true;
    this.item = 0;
    this.bodies = scene.bodies;
    this.itemCount = scene.items.length;
    this.time = unpack(scene.time);
    this.position = unpack(scene.position);
    this.quaternion = unpack(scene.quaternion);
    this.center = unpack(scene.center);
    this.shapes = scene.shapes.filter((s) => s.kind !== "plane").map((s) => ({
      body: s.body,
      offset: s.position,
      turn: rotation(...s.quaternion),
      color: s.color,
      vertices: unpack(s.vertices),
      faces: s.faces,
    }));
    this.planes = scene.shapes.filter((s) => s.kind === "plane" && s.body < 0).map((s) => ({
      origin: s.position,
      turn: rotation(...s.quaternion),
    }));
    this.duration = this.time[this.time.length - 1];
    this.reset();
  }

  // A distance from which the model at its start fills a good part of the page.
  reset() {
    const frame = this.pose(0);
    let radius = 0.1;
    for (const shape of this.shapes) {
      if (shape.body < 0) continue;
      for (const p of this.worldVertices(shape, frame)) {
        const d = [0, 1, 2].map((i) => p[i] - frame.center[i]);
        radius = Math.max(radius, Math.hypot(...d));
      }
    }
    this.radius = radius;
    this.camera.azimuth = -1.15;
    this.camera.elevation = 0.28;
    this.camera.distance = 4.2 * radius;
    this.camera.target = frame.center.slice();
    this.shift = [0, 0, 0];
  }

  // Bodies at a time, interpolated between frames.
  pose(time) {
    let low = 0;
    let high = this.time.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.time[middle] <= time) low = middle; else high = middle;
    }
    const span = this.time[high] - this.time[low];
    const part = span > 0 ? Math.min(Math.max((time - this.time[low]) / span, 0), 1) : 0;
    const mix = (array, width, index) => {
      const at = (frame) => array[(frame * this.itemCount + this.item) * width + index];
      return (1 - part) * at(low) + part * at(high);
    };
    const frame = { position: [], turn: [], center: [] };
    for (let i = 0; i < 3; i++) frame.center.push(mix(this.center, 3, i));
    for (let body = 0; body < this.bodies; body++) {
      const p = [0, 1, 2].map((i) => mix(this.position, 3 * this.bodies, 3 * body + i));
      const q = [0, 1, 2, 3].map((i) => mix(this.quaternion, 4 * this.bodies, 4 * body + i));
      frame.position.push(p);
      frame.turn.push(rotation(...q));
    }
    return frame;
  }

  worldVertices(shape, frame) {
    const points = [];
    const v = shape.vertices;
    for (let i = 0; i < v.length; i += 3) {
      let p = apply(shape.turn, v[i], v[i + 1], v[i + 2], shape.offset);
      if (shape.body >= 0) {
        p = apply(frame.turn[shape.body], p[0], p[1], p[2], frame.position[shape.body]);
      }
      points.push(p);
    }
    return points;
  }

  draw(time) {
    const { context: c, camera } = this;
    const frame = this.pose(time);
    if (this.follow) {
      const goal = frame.center.map((x, i) => x + this.shift[i]);
      // Small rises and falls of a gait should be seen, not followed.
      const slack = 0.25 * this.radius;
      const height = Math.min(Math.max(camera.target[2], goal[2] - slack), goal[2] + slack);
      camera.target = [goal[0], goal[1], height];
    }
    camera.aim();
    c.clearRect(0, 0, camera.width, camera.height);
    this.drawSky();
    for (const plane of this.planes) this.drawPlane(plane, frame.center);
    const bodies = this.shapes.map((s) => ({ shape: s, points: this.worldVertices(s, frame) }));
    if (this.planes.length) this.drawShadows(bodies, this.planes[0]);
    this.drawFaces(bodies);
  }

  drawSky() {
    const { context: c, camera } = this;
    const sky = c.createLinearGradient(0, 0, 0, camera.height);
    sky.addColorStop(0, "#cfdde8");
    sky.addColorStop(0.55, "#eef2f5");
    sky.addColorStop(1, "#dfe5ea");
    c.fillStyle = sky;
    c.fillRect(0, 0, camera.width, camera.height);
  }

  // Grid lines of one metre (finer for small models) around the model, fading with distance.
  drawPlane(plane, center) {
    const { context: c, camera } = this;
    const spacing = Math.pow(2, Math.round(Math.log2(Math.max(this.radius, 0.05))));
    const t = plane.turn;
    const d = center.map((x, i) => x - plane.origin[i]);
    const local = [0, 1].map((k) => d[0] * t[k] + d[1] * t[3 + k] + d[2] * t[6 + k]);
    const middle = local.map((x) => Math.round(x / spacing));
    const reach = 14;
    for (let axis = 0; axis < 2; axis++) {
      for (let i = -reach; i <= reach; i++) {
        for (let j = -reach; j < reach; j++) {
          const ends = [j, j + 1].map((step) => {
            const uv = [0, 0];
            uv[axis] = (middle[axis] + step) * spacing;
            uv[1 - axis] = (middle[1 - axis] + i) * spacing;
            return camera.view(apply(t, uv[0], uv[1], 0, plane.origin));
          });
          if (ends[0][2] < NEAR || ends[1][2] < NEAR) continue;
          const away = Math.hypot(i, j + 0.5) / reach;
          const fade = Math.max(0, 1 - away * away);
          const isZero = middle[1 - axis] + i === 0;
          c.strokeStyle = `rgba(70,88,104,${(fade * (isZero ? 0.75 : 0.3)).toFixed(3)})`;
          c.lineWidth = isZero ? 1.8 : 1;
          const [a, b] = ends.map((v) => camera.screen(v));
          c.beginPath();
          c.moveTo(a[0], a[1]);
          c.lineTo(b[0], b[1]);
          c.stroke();
        }
      }
    }
  }

  drawShadows(bodies, plane) {
    const { context: c, camera } = this;
    const n = [plane.turn[2], plane.turn[5], plane.turn[8]];
    const slope = n[0] * LIGHT[0] + n[1] * LIGHT[1] + n[2] * LIGHT[2];
    if (slope < 0.1) return;
    c.fillStyle = "rgba(40,55,70,0.16)";
    for (const { shape, points } of bodies) {
      if (shape.body < 0) continue;
      const shadow = [];
      for (const p of points) {
        const height = [0, 1, 2].reduce((sum, i) => sum + n[i] * (p[i] - plane.origin[i]), 0);
        const v = camera.view(p.map((x, i) => x - (Math.max(height, 0) / slope) * LIGHT[i]));
        if (v[2] > NEAR) shadow.push(camera.screen(v));
      }
      if (shadow.length === points.length) this.fill(hull(shadow));
    }
  }

  drawFaces(bodies) {
    const { context: c, camera } = this;
    const faces = [];
    const norm = Math.hypot(...LIGHT);
    for (const { shape, points } of bodies) {
      const seen = points.map((p) => camera.view(p));
      const flat = seen.map((v) => (v[2] > NEAR ? camera.screen(v) : null));
      for (let f = 0; f < shape.faces.length; f += 4) {
        const corner = [0, 1, 2, 3].map((k) => shape.faces[f + k]);
        if (corner.some((k) => flat[k] === null)) continue;
        const [a, b, d, e] = corner.map((k) => points[k]);
        // Diagonals of the four-cornered face: right for triangles with a doubled corner too.
        const u = [d[0] - a[0], d[1] - a[1], d[2] - a[2]];
        const w = [e[0] - b[0], e[1] - b[1], e[2] - b[2]];
        const n = [u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]];
        const length = Math.hypot(...n);
        const toEye = camera.eye.map((x, i) => x - a[i]);
        if (n[0] * toEye[0] + n[1] * toEye[1] + n[2] * toEye[2] <= 0 || length < 1e-12) continue;
        const light = (n[0] * LIGHT[0] + n[1] * LIGHT[1] + n[2] * LIGHT[2]) / (length * norm);
        const depth = corner.reduce((sum, k) => sum + seen[k][2], 0);
        faces.push({ depth, light, color: shape.color, corners: corner.map((k) => flat[k]) });
      }
    }
    faces.sort((p, q) => q.depth - p.depth);
    c.lineWidth = 0.7;
    c.lineJoin = "round";
    for (const face of faces) {
      const shade = 0.62 + 0.3 * Math.max(face.light, 0) + 0.12 * Math.min(face.light, 0);
      const gloss = 60 * Math.pow(Math.max(face.light, 0), 12);
      const rgb = face.color.slice(0, 3).map((x) => Math.min(255, Math.round(275 * x * shade + gloss)));
      c.fillStyle = `rgba(${rgb.join(",")},${face.color[3]})`;
      // The same colour closes the seams between neighbours.
      c.strokeStyle = c.fillStyle;
      this.fill(face.corners, face.color[3] > 0.99);
    }
  }

  fill(corners, withEdge = false) {
    const c = this.context;
    if (corners.length < 3) return;
    c.beginPath();
    c.moveTo(corners[0][0], corners[0][1]);
    for (let i = 1; i < corners.length; i++) c.lineTo(corners[i][0], corners[i][1]);
    c.closePath();
    c.fill();
    if (withEdge) c.stroke();
  }
}

function connect(page, window) {
  const get = (id) => page.getElementById(id);
  const scene = JSON.parse(get("scene").textContent);
  const stage = get("stage");
  const viewer = new Viewer(stage.getContext("2d"), scene, 300, 150);
  let time = 0;
  let isPlaying = true;
  let last = null;
  let dirty = true;

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    stage.width = Math.round(stage.clientWidth * ratio);
    stage.height = Math.round(stage.clientHeight * ratio);
    viewer.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    viewer.camera.resize(stage.clientWidth, stage.clientHeight);
    dirty = true;
  }

  function play(on) {
    isPlaying = on;
    last = null;
    get("play").textContent = on ? "Pause" : "Play";
    if (on && time >= viewer.duration) time = 0;
  }

  function tick(now) {
    if (isPlaying) {
      if (last !== null) time += (now - last) / 1000 * Number(get("speed").value);
      last = now;
      if (time >= viewer.duration + 0.6 * Number(get("speed").value)) time = 0;
      dirty = true;
    }
    if (dirty) {
      const shown = Math.min(time, viewer.duration);
      viewer.draw(shown);
      get("time").value = shown;
      get("clock").textContent = `${shown.toFixed(2)} / ${viewer.duration.toFixed(2)} s`;
      dirty = false;
    }
    window.requestAnimationFrame(tick);
  }

  get("name").textContent = scene.name;
  get("time").max = viewer.duration;
  scene.items.forEach((item, index) => {
    const option = page.createElement("option");
    option.value = index;
    option.textContent = `item ${item}`;
    get("item").append(option);
  });
  get("item").hidden = scene.items.length < 2;

  get("play").onclick = () => play(!isPlaying);
  get("time").oninput = () => { play(false); time = Number(get("time").value); dirty = true; };
  get("item").onchange = () => { viewer.item = Number(get("item").value); dirty = true; };
  get("follow").onchange = () => { viewer.follow = get("follow").checked; dirty = true; };
  get("reset").onclick = () => { viewer.reset(); dirty = true; };
  window.addEventListener("resize", resize);
  window.addEventListener("keydown", (event) => {
    if (event.code === "Space" && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      play(!isPlaying);
    }
  });
  stage.onpointerdown = (event) => stage.setPointerCapture(event.pointerId);
  stage.onpointermove = (event) => {
    if (!event.buttons) return;
    const { camera } = viewer;
    if (event.shiftKey || event.buttons === 2) {
      const scale = camera.distance / camera.focal;
      for (let i = 0; i < 3; i++) {
        const d = scale * (camera.up[i] * event.movementY - camera.right[i] * event.movementX);
        viewer.shift[i] += d;
        camera.target[i] += d;
      }
    } else {
      camera.azimuth -= 0.007 * event.movementX;
      camera.elevation += 0.007 * event.movementY;
      camera.elevation = Math.min(Math.max(camera.elevation, 0.02), 1.55);
    }
    dirty = true;
  };
  stage.oncontextmenu = (event) => event.preventDefault();
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    viewer.camera.distance *= Math.exp(0.001 * event.deltaY);
    dirty = true;
  }, { passive: false });
  resize();
  window.requestAnimationFrame(tick);
}

if (typeof module !== "undefined") module.exports = { Viewer, hull, rotation, unpack };
if (typeof document !== "undefined") connect(document, window);
