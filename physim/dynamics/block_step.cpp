// What a block of lanes does with one step: Newton's method, and what is tried where it fails.
// What a step takes, what it gives.
struct Work {
  V q[NQ + 1], v[NV + 1], control[NU + 1], external[NV + 1], force[NV + 1], steps[2], kappa[1];
  V x[NQ + 1], v_next[NV + 1], warm[WARM + 1];
  V iterations, residual, paths, gap, parts, exact, deviation;
};
const V none = V(0.0), unit = V(1.0);
const M everyone = none < unit;
const auto push_controls = [&](Work& work, const V* num) {
  const V* const q = work.q;
  const V* const v = work.v;
  const V* const control = work.control;
  const V* const external = work.external;
  V* const force = work.force;
  @FORCE@
};
const auto normalise = [&](Work& work) {
  V* const q = work.q;
  @NORMALISE@
};
const auto finite = [&](const Work& work) -> M {
  V sum = work.steps[0] + work.steps[1];
  for (int i = 0; i < NQ; ++i) sum = sum + work.q[i];
  for (int i = 0; i < NV; ++i) sum = sum + (work.v[i] + work.force[i]);
  return sum * 0.0 == 0.0;
};
const auto pull_velocity = [&](Work& work) {
  const V* const q = work.q;
  const V* const x = work.x;
  const V* const steps = work.steps;
  V* const v_next = work.v_next;
  @VELOCITY@
};

const auto solve_newton = [&](Work& work, const V* num, bool smooth, bool predict, int most,
                              M wanted) -> M {
  V seen[5];
  const M good = newton(work.q, work.v, work.force, work.steps, num, work.kappa, smooth, predict,
                        most, wanted, work.x, work.warm, work.warm + 2 * LIMITS,
                        work.warm + JOINT_PAIRS, seen);
  work.iterations = work.iterations + (wanted ? seen[0] : none);
  work.residual = wanted ? vmax(seen[1], seen[2]) : work.residual;
  work.gap = wanted ? seen[3] : work.gap;
  work.exact = wanted ? vbool(good) : work.exact;
  work.deviation = wanted ? seen[4] : work.deviation;
  return good & wanted;
};
// Takes over the outcome of a trial in some lanes: the point, or everything.
const auto adopt = [&](Work& work, const Work& trial, M chosen, V exact) {
  for (int i = 0; i < NQ; ++i) work.x[i] = chosen ? trial.x[i] : work.x[i];
  for (int i = 0; i < WARM; ++i) work.warm[i] = chosen ? trial.warm[i] : work.warm[i];
  work.residual = chosen ? trial.residual : work.residual;
  work.gap = chosen ? trial.gap : work.gap;
  work.deviation = chosen ? trial.deviation : work.deviation;
  work.exact = chosen ? exact : work.exact;
};
const auto take_over = [&](Work& work, const Work& trial, M chosen) {
  adopt(work, trial, chosen, trial.exact);
  for (int i = 0; i < NV; ++i) work.v_next[i] = chosen ? trial.v_next[i] : work.v_next[i];
  work.iterations = chosen ? trial.iterations : work.iterations;
  work.paths = chosen ? trial.paths : work.paths;
};
// The interior point at one path parameter.
const auto follow_path = [&](Work& work, const V* num, V kappa, M wanted) -> M {
  V at[1], seen[7], x[NQ + 1];
  V limit[2 * LIMITS + 1], rub[RUBS + 1], impulses[3 * CONTACTS + 1];
  at[0] = kappa;
  interior_point(work.q, work.v, work.force, work.steps, num, at, 1, wanted, x, limit, rub,
                 impulses, seen);
  work.iterations = work.iterations + (wanted ? seen[0] : none);
  work.paths = work.paths + (wanted ? unit : none);
  Work trial = work;
  for (int i = 0; i < NQ; ++i) trial.x[i] = x[i];
  for (int i = 0; i < 2 * LIMITS; ++i) trial.warm[i] = limit[i];
  for (int i = 0; i < RUBS; ++i) trial.warm[2 * LIMITS + i] = rub[i];
  for (int i = 0; i < 3 * CONTACTS; ++i) trial.warm[JOINT_PAIRS + i] = impulses[i];
  trial.residual = seen[1];
  trial.deviation = seen[2];
  trial.gap = seen[5];
  adopt(work, trial, wanted, none);
  return wanted & (seen[3] < 0.5);
};
// Newton's method at the state's own smoothing, from where the lanes are.
const auto solve_here = [&](Work& work, const V* num, int most, M wanted) -> M {
  Work trial = work;
  const M good = solve_newton(trial, num, is_smooth, false, most, wanted);
  adopt(work, trial, good, unit);
  work.iterations = trial.iterations;
  return good;
};
// A softer problem from the predicted point, and from there the problem itself. Where that fails the
// path leads down to it, with too few iterations at every stage to jam there.
const auto solve_soft = [&](Work& work, const V* num, M wanted) -> M {
  Work trial = work;
  trial.kappa[0] = vmax(work.kappa[0], path_rate * work.steps[1] * SOFTENING);
  const M soft = solve_newton(trial, num, true, true, NEWTON_MORE, wanted);
  adopt(work, trial, soft, none);
  work.iterations = trial.iterations;
  const M exact = solve_here(work, num, NEWTON_FIRST, soft), left = wanted & !exact;
  if (NEWTON_STAGE == 0 || !vany(left)) return exact;
  trial.iterations = work.iterations;
  for (int stage = 0; stage < STAGES; ++stage) {
    trial.kappa[0] = vmax(work.kappa[0], trial.kappa[0] * 0.1);
    solve_newton(trial, num, true, false, NEWTON_STAGE, left);
  }
  trial.kappa[0] = work.kappa[0];
  const M late = solve_here(trial, num, NEWTON_FIRST + NEWTON_STAGE, left);
  adopt(work, trial, late, unit);
  work.iterations = trial.iterations;
  return exact | late;
};
// From a solution of the softest problem Newton down the path, and at every stage on to the problem
// itself. What comes as far as stage `enough` counts as solved, if not as exact.
const auto descend = [&](Work& work, const V* num, int enough, M soft) -> M {
  V kappa = path_rate * work.steps[1] * SOFTENING;
  M exact = solve_here(work, num, NEWTON_MOST, soft), reached = none > unit;
  for (int stage = 0; stage < STAGES; ++stage) {
    soft = soft & !exact;
    if (!vany(soft)) break;
    kappa = kappa * 0.1;
    Work trial = work;
    trial.kappa[0] = kappa;
    soft = soft & solve_newton(trial, num, true, false, NEWTON_MOST, soft);
    adopt(work, trial, soft, none);
    work.iterations = trial.iterations;
    exact = exact | (soft & solve_here(work, num, NEWTON_MOST, soft));
    if (stage >= enough) reached = reached | soft;
  }
  return reached | exact;
};
// The interior point close to the end of the path and Newton from there; where it jams, the
// interior point on the softest problem and Newton down the path.
const auto solve_path = [&](Work& work, const V* num, int enough, M wanted) -> M {
  if (is_smooth) {
    const M good = follow_path(work, num, work.kappa[0], wanted);
    work.exact = good ? unit : work.exact;
    return good;
  }
  const V end = path_rate * work.steps[1];
  M solved = follow_path(work, num, end, wanted);
  solved = solved | solve_here(work, num, NEWTON_MOST, wanted);
  const M jammed = wanted & !solved;
  if (!vany(jammed)) return solved;
  const M soft = follow_path(work, num, end * SOFTENING, jammed);
  return solved | descend(work, num, enough, soft);
};
// The same interval in equal parts; lanes that fail in one part stay behind.
const auto solve_parts = [&](Work& work, const V* num, int count, M wanted) -> M {
  Work part = work;
  M alive = wanted;
  V worst = none, lowest = V(__builtin_inf()), all_exact = unit, farthest = none;
  for (int i = 0; i < WARM; ++i) part.warm[i] = none;
  part.steps[1] = work.steps[1] / (double)count;
  part.kappa[0] = work.kappa[0] / (double)count;
  for (int k = 0; k < count && vany(alive); ++k) {
    push_controls(part, num);
    M good = solve_newton(part, num, is_smooth, true, NEWTON_MOST, alive);
    if (vany(alive & !good)) good = good | solve_soft(part, num, alive & !good);
    if (vany(alive & !good)) good = good | solve_path(part, num, STAGES - 2, alive & !good);
    alive = alive & good;
    worst = vmax(worst, part.residual);
    lowest = vmin(lowest, part.gap);
    all_exact = vmin(all_exact, part.exact);
    farthest = vmax(farthest, part.deviation);
    pull_velocity(part);
    for (int i = 0; i < NQ; ++i) part.q[i] = alive ? part.x[i] : part.q[i];
    for (int i = 0; i < NV; ++i) part.v[i] = alive ? part.v_next[i] : part.v[i];
    part.steps[0] = part.steps[1];
  }
  work.iterations = wanted ? part.iterations : work.iterations;
  work.paths = wanted ? part.paths : work.paths;
  for (int i = 0; i < NQ; ++i) work.x[i] = alive ? part.x[i] : work.x[i];
  for (int i = 0; i < NV; ++i) work.v_next[i] = alive ? part.v_next[i] : work.v_next[i];
  for (int i = 0; i < WARM; ++i) work.warm[i] = alive ? part.warm[i] : work.warm[i];
  work.residual = alive ? worst : work.residual;
  work.gap = alive ? lowest : work.gap;
  work.exact = alive ? all_exact : work.exact;
  work.deviation = alive ? farthest : work.deviation;
  work.parts = alive ? V((double)count) : work.parts;
  return alive;
};
