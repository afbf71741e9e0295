// Many steps of a team of environments in one call. Every step runs Newton on all blocks of lanes;
// the environments that it does not solve are gathered into full blocks, solved by the interior
// point and polished; those that still fail are taken again in 2, 4, ... parts.
constexpr int JOINT_PAIRS = 2 * LIMITS + RUBS;
constexpr int WARM = JOINT_PAIRS + 3 * CONTACTS;
const int begin = block * team * LANES;
const int end = batch < begin + team * LANES ? batch : begin + team * LANES;
const V none = V(0.0), unit = V(1.0);
const M everyone = none < unit;

// One block of lanes: what a step takes, what it gives.
struct Work {
  V q[NQ + 1], v[NV + 1], control[NU + 1], external[NV + 1], force[NV + 1], steps[2], kappa[1];
  V x[NQ + 1], v_next[NV + 1], warm[WARM + 1];
  V iterations, residual, paths, gap, parts, exact, deviation;
};
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
// Takes over the outcome of a trial in some lanes.
const auto adopt = [&](Work& work, const Work& trial, M chosen, V exact) {
  for (int i = 0; i < NQ; ++i) work.x[i] = chosen ? trial.x[i] : work.x[i];
  for (int i = 0; i < WARM; ++i) work.warm[i] = chosen ? trial.warm[i] : work.warm[i];
  work.residual = chosen ? trial.residual : work.residual;
  work.gap = chosen ? trial.gap : work.gap;
  work.deviation = chosen ? trial.deviation : work.deviation;
  work.exact = chosen ? exact : work.exact;
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
const auto solve_here = [&](Work& work, const V* num, M wanted) -> M {
  Work trial = work;
  const M good = solve_newton(trial, num, is_smooth, false, NEWTON_MOST, wanted);
  adopt(work, trial, good, unit);
  work.iterations = trial.iterations;
  return good;
};
// Lanes that Newton does not solve: the interior point close to the end of the path and Newton from
// there; where it jams, a softer problem and Newton along the path. What comes as far as stage
// `enough` counts as solved, if not as exact.
const auto solve_path = [&](Work& work, const V* num, int enough, M wanted) -> M {
  if (is_smooth) {
    const M good = follow_path(work, num, work.kappa[0], wanted);
    work.exact = good ? unit : work.exact;
    return good;
  }
  const V end = path_rate * work.steps[1];
  M reached = follow_path(work, num, end, wanted);
  M exact = solve_here(work, num, wanted);
  const M jammed = wanted & !(reached | exact);
  if (!vany(jammed)) return reached | exact;
  V kappa = end * SOFTENING;
  M soft = follow_path(work, num, kappa, jammed);
  exact = exact | (soft & solve_here(work, num, soft));
  for (int stage = 0; stage < STAGES; ++stage) {
    soft = soft & !exact;
    if (!vany(soft)) break;
    kappa = kappa * 0.1;
    Work trial = work;
    trial.kappa[0] = kappa;
    soft = soft & solve_newton(trial, num, true, false, NEWTON_MOST, soft);
    adopt(work, trial, soft, none);
    work.iterations = trial.iterations;
    exact = exact | (soft & solve_here(work, num, soft));
    if (stage >= enough) reached = reached | soft;
  }
  return reached | exact;
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
    const M left = alive & !good;
    if (vany(left)) good = good | solve_path(part, num, STAGES - 2, left);
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

int slow[TEAM_MOST * LANES], stuck[TEAM_MOST * LANES];
for (int step = 0; step < steps_count; ++step) {
  const size_t past = (size_t)(step - 1) * batch, now = (size_t)step * batch;
  const double* const q_from = step ? q_out + past * NQ : q_in;
  const double* const v_from = step ? v_out + past * NV : v_in;
  const double* const interval_from = step ? interval_out + past : interval_in;
  const double* const control_from = control_in + (size_t)step * control_stride;
  const double* const external_from = external_in;

  const auto seat = [&](const Seats& at, Work& work) {
    gather(q_from, NQ, at, work.q);
    gather(v_from, NV, at, work.v);
    gather(interval_from, 1, at, work.steps);
    gather(timestep_in, 1, at, work.steps + 1);
    gather(control_from, NU, at, work.control);
    if (has_external) gather(external_from, NV, at, work.external);
    else for (int i = 0; i < NV; ++i) work.external[i] = none;
    gather(impulses_out, WARM, at, work.warm);
    if (step == 0) normalise(work);
    work.kappa[0] = V(state_kappa);
    work.iterations = work.residual = work.paths = work.gap = work.exact = work.deviation = none;
    work.parts = unit;
  };
  const auto leave = [&](const Seats& at, const Work& work, M good) {
    V report[REPORT];
    report[0] = work.iterations;
    report[1] = work.residual;
    V sum = none;
    for (int i = 0; i < NQ; ++i) sum = sum + work.x[i];
    for (int i = 0; i < NV; ++i) sum = sum + work.v_next[i];
    report[2] = sum * 0.0 == 0.0 ? (good ? none : V(FAILED)) : V(NON_FINITE);
    report[3] = work.parts;
    report[4] = work.paths;
    report[5] = work.gap;
    report[6] = good ? unit - work.exact : none;
    report[7] = work.deviation;
    report[8] = vbool(good);
    V interval[1];
    interval[0] = work.steps[1] / work.parts;
    scatter(work.x, NQ, at, q_out + now * NQ);
    scatter(work.v_next, NV, at, v_out + now * NV);
    scatter(interval, 1, at, interval_out + now);
    scatter(report, REPORT, at, report_out + now * REPORT);
    scatter(work.warm, WARM, at, impulses_out);
  };

  // Seats for every LANES of the environments in a list.
  const auto seats_of = [&](const int* list, int first, int last) -> Seats {
    Seats at;
    at.real = last - first < LANES ? last - first : LANES;
    for (int l = 0; l < LANES; ++l) at.item[l] = list[first + (l < at.real ? l : at.real - 1)];
    return at;
  };
  const auto numbers_of = [&](const Seats& at, V* own) {
    for (int i = 0; i < NUMBERS; ++i)
      for (int l = 0; l < LANES; ++l) {
        const size_t from = (size_t)(at.item[l] / LANES) * number_stride + i;
        vput(own[i], l, vlane(numbers_in[from], at.item[l] % LANES));
      }
  };
  const auto collect = [&](const Seats& at, M good, int* list, int& count) {
    const V flags = vbool(good);
    for (int l = 0; l < at.real; ++l)
      if (vlane(flags, l) < 0.5) list[count++] = at.item[l];
  };

  // A policy sees the states that the step starts from.
  for (int first = begin; policy_layers && first < end; first += LANES) {
    Seats at;
    at.real = end - first < LANES ? end - first : LANES;
    for (int l = 0; l < LANES; ++l) at.item[l] = first + (l < at.real ? l : at.real - 1);
    Work work;
    V seen[POLICY_MOST];
    gather(q_from, NQ, at, work.q);
    gather(v_from, NV, at, work.v);
    if (step == 0) normalise(work);
    act(work.q, work.v, step, first / LANES, seen, work.control);
    scatter(work.control, NU, at, control_in + (size_t)step * control_stride);
  }

  int slow_count = 0, count = 0;
  for (int first = begin; first < end; first += LANES) {
    Seats at;
    at.real = end - first < LANES ? end - first : LANES;
    for (int l = 0; l < LANES; ++l) at.item[l] = first + (l < at.real ? l : at.real - 1);
    Work work;
    seat(at, work);
    const V* const num = numbers_in + (size_t)(first / LANES) * number_stride;
    push_controls(work, num);
    const M sane = finite(work);
    for (int i = 0; i < NQ; ++i) work.x[i] = work.q[i];
    const M good = solve_newton(work, num, is_smooth, true, NEWTON_FIRST, sane);
    pull_velocity(work);
    leave(at, work, good);
    collect(at, good | !sane, slow, slow_count);
  }
  for (int first = 0; first < slow_count; first += LANES) {
    const Seats at = seats_of(slow, first, slow_count);
    V own[NUMBERS];
    numbers_of(at, own);
    Work work;
    seat(at, work);
    gather(q_out + now * NQ, NQ, at, work.x);
    work.iterations = V((double)NEWTON_FIRST);
    push_controls(work, own);
    const M good = solve_newton(work, own, is_smooth, false, NEWTON_MOST - NEWTON_FIRST, everyone);
    pull_velocity(work);
    leave(at, work, good);
    collect(at, good, stuck, count);
  }
  for (int first = 0; first < count; first += LANES) {
    const Seats at = seats_of(stuck, first, count);
    V own[NUMBERS];
    numbers_of(at, own);
    Work work;
    seat(at, work);
    for (int i = 0; i < WARM; ++i) work.warm[i] = none;
    push_controls(work, own);
    work.iterations = V((double)NEWTON_MOST);
    M good = solve_path(work, own, STAGES - 2, everyone);
    pull_velocity(work);
    for (int parts = 2; parts <= most_parts && vany(!good); parts *= 2)
      good = good | solve_parts(work, own, parts, !good);
    if (most_parts > 1 && vany(!good)) good = good | solve_path(work, own, 0, !good);
    leave(at, work, good);
  }
  // The solution that gradients belong to: Newton on the smoothed problem, from the solution.
  for (int first = begin; want_soft && first < end; first += LANES) {
    Seats at;
    at.real = end - first < LANES ? end - first : LANES;
    for (int l = 0; l < LANES; ++l) at.item[l] = first + (l < at.real ? l : at.real - 1);
    Work work;
    seat(at, work);
    gather(q_out + now * NQ, NQ, at, work.x);
    V report[REPORT];
    gather(report_out + now * REPORT, REPORT, at, report);
    const V* const num = numbers_in + (size_t)(first / LANES) * number_stride;
    push_controls(work, num);
    work.kappa[0] = V(soft_kappa);
    const M wanted = (report[2] < 0.5) & (report[3] < 1.5);
    M good = solve_newton(work, num, true, false, NEWTON_MOST, wanted);
    const M left = wanted & !good;
    if (vany(left)) good = good | follow_path(work, num, work.kappa[0], left);
    report[8] = wanted ? vbool(good) : report[8];
    scatter(work.x, NQ, at, soft_out + now * NQ);
    scatter(report, REPORT, at, report_out + now * REPORT);
  }
  // Impulses of every step follow those of the last one.
  if (impulse_stride) {
    double* const kept = impulses_out + (size_t)(step + 1) * impulse_stride;
    for (int i = begin * WARM; i < end * WARM; ++i) kept[i] = impulses_out[i];
  }
}
