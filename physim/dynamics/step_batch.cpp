// Many steps of a team of environments in one call. Every environment goes at its own pace: it waits
// in the queue of what it needs next (the first iterations of a step, more of them, a softer
// problem, the interior point, parts), and blocks of lanes are filled from the queues. What few
// environments need is done when a block of them has gathered, so that no lane runs empty.
constexpr int JOINT_PAIRS = 2 * LIMITS + RUBS;
constexpr int WARM = JOINT_PAIRS + 3 * CONTACTS;
@BLOCK_STEP@

enum Need { FIRST, MORE, SOFTER, PATH, PARTS, NEEDS };
const int begin = block * team * LANES;
const int size = (batch < begin + team * LANES ? batch : begin + team * LANES) - begin;
int turn[TEAM_MOST * LANES], queue[NEEDS][TEAM_MOST * LANES], waiting[NEEDS], since[NEEDS];
// Environments alike in the contacts that push share a block.
double likeness[TEAM_MOST * LANES];

// The environments in the lanes of a block; lanes from `real` on repeat the last one.
struct Seats { int item[LANES], turn[LANES]; int real; };
const auto seats_of = [&](const int* list, int first, int count) -> Seats {
  Seats at;
  at.real = count - first < LANES ? count - first : LANES;
  for (int l = 0; l < LANES; ++l) {
    const int place = list[first + (l < at.real ? l : at.real - 1)];
    at.item[l] = begin + place;
    at.turn[l] = turn[place];
  }
  return at;
};
// Rows of what is given once, of what is given or left for every step, of a step's beginning.
const auto take = [&](const double* source, int width, const Seats& at, V* target) {
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l) rows[l] = source + (size_t)at.item[l] * width;
  vgather_rows(rows, width, target);
};
const auto take_now = [&](const double* source, size_t stride, int width, const Seats& at,
                          V* target) {
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l)
    rows[l] = source + at.turn[l] * stride + (size_t)at.item[l] * width;
  vgather_rows(rows, width, target);
};
const auto take_past = [&](const double* given, const double* left, int width, const Seats& at,
                           V* target) {
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l) {
    rows[l] = at.turn[l] ? left + (size_t)(at.turn[l] - 1) * batch * width : given;
    rows[l] += (size_t)at.item[l] * width;
  }
  vgather_rows(rows, width, target);
};
const auto leave_now = [&](const V* source, int width, const Seats& at, double* target) {
  double* rows[LANES];
  for (int l = 0; l < at.real; ++l)
    rows[l] = target + ((size_t)at.turn[l] * batch + at.item[l]) * width;
  vscatter_rows(source, width, rows, at.real);
};
const auto numbers_of = [&](const Seats& at, V* own) -> const V* {
  if (number_stride == 0) return numbers_in;
  for (int i = 0; i < NUMBERS; ++i)
    for (int l = 0; l < LANES; ++l) {
      const size_t from = (size_t)(at.item[l] / LANES) * number_stride + i;
      vput(own[i], l, vlane(numbers_in[from], at.item[l] % LANES));
    }
  return own;
};

// Lines of memory that the next block will read and write, asked for before they are needed.
const auto fetch_row = [&](const double* row, int width) {
  for (int i = 0; i < width; i += 8) __builtin_prefetch(row + i);
  __builtin_prefetch(row + width - 1);
};
const auto fetch = [&](const int* list, int first, int count) {
  for (int l = first; l < first + LANES && l < count; ++l) {
    const size_t item = begin + list[l], now = turn[list[l]];
    const size_t row = now * batch + item, past = row - batch;
    fetch_row(now ? q_out + past * NQ : q_in + item * NQ, NQ);
    fetch_row(now ? v_out + past * NV : v_in + item * NV, NV);
    fetch_row(control_in + now * control_stride + item * NU, NU);
    fetch_row(impulses_out + item * WARM, WARM);
    fetch_row(q_out + row * NQ, NQ);
    fetch_row(v_out + row * NV, NV);
    fetch_row(report_out + row * REPORT, REPORT);
  }
};

const auto seat = [&](const Seats& at, Work& work) {
  take_past(q_in, q_out, NQ, at, work.q);
  take_past(v_in, v_out, NV, at, work.v);
  take_past(interval_in, interval_out, 1, at, work.steps);
  take(timestep_in, 1, at, work.steps + 1);
  take_now(control_in, control_stride, NU, at, work.control);
  if (has_external) take(external_in, NV, at, work.external);
  else for (int i = 0; i < NV; ++i) work.external[i] = none;
  take(impulses_out, WARM, at, work.warm);
  V first;
  for (int l = 0; l < LANES; ++l) vput(first, l, at.turn[l] == 0 ? 1.0 : 0.0);
  if (vany(first > 0.5)) {
    Work given = work;
    normalise(given);
    for (int i = 0; i < NQ; ++i) work.q[i] = first > 0.5 ? given.q[i] : work.q[i];
  }
  work.kappa[0] = V(state_kappa);
  work.iterations = work.residual = work.paths = work.gap = work.exact = work.deviation = none;
  work.parts = unit;
};
const auto leave = [&](const Seats& at, const Work& work, M good, M differentiable) {
  V report[REPORT], interval[1], sum = none;
  for (int i = 0; i < NQ; ++i) sum = sum + work.x[i];
  for (int i = 0; i < NV; ++i) sum = sum + work.v_next[i];
  report[0] = work.iterations;
  report[1] = work.residual;
  report[2] = sum * 0.0 == 0.0 ? (good ? none : V(FAILED)) : V(NON_FINITE);
  report[3] = work.parts;
  report[4] = work.paths;
  report[5] = work.gap;
  report[6] = good ? unit - work.exact : none;
  report[7] = work.deviation;
  report[8] = vbool(differentiable);
  interval[0] = work.steps[1] / work.parts;
  leave_now(work.x, NQ, at, q_out);
  leave_now(work.v_next, NV, at, v_out);
  leave_now(interval, 1, at, interval_out);
  leave_now(report, REPORT, at, report_out);
  double* rows[LANES];
  for (int l = 0; l < at.real; ++l) rows[l] = impulses_out + (size_t)at.item[l] * WARM;
  vscatter_rows(work.warm, WARM, rows, at.real);
  // Impulses of every step follow those of the last one.
  if (impulse_stride) {
    for (int l = 0; l < at.real; ++l) rows[l] += (at.turn[l] + 1) * (size_t)impulse_stride;
    vscatter_rows(work.warm, WARM, rows, at.real);
  }
};
// A policy sees the state that the step starts from.
const auto decide = [&](const Seats& at, Work& work) {
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l) rows[l] = weights_of(at.turn[l], at.item[l]);
  V value[POLICY_MOST];
  act(work.q, work.v, rows, policy_stride || is_own, value, work.control);
  leave_now(work.control, NU, at, control_in);
};
// The solution that gradients belong to: Newton on the smoothed problem, from the solution.
const auto soften = [&](const Seats& at, const Work& work, const V* num, M solved) -> M {
  Work soft = work;
  soft.kappa[0] = V(soft_kappa);
  M good = none > unit;
  if (vany(solved)) good = solve_newton(soft, num, true, false, NEWTON_MOST, solved);
  const M left = solved & !good;
  if (vany(left)) good = good | follow_path(soft, num, soft.kappa[0], left);
  leave_now(soft.x, NQ, at, soft_out);
  return good;
};

// Environments are alike if they push with as many contacts between links, with the same first and
// last of them, and with the same contacts on planes, in this order.
const auto compare = [&](const Seats& at, const Work& work) {
  V many = none, first = none, last = none, floor = none;
  #pragma unroll 4
  for (int i = 0; i < CONTACTS; ++i) {
    const M pushes = work.warm[JOINT_PAIRS + 3 * i] > 0.0;
    if (pair_of[i] < 0) {
      floor = floor + (pushes ? V((double)(1 << i % 20)) : none);
    } else if (vany(pushes)) {
      const V place = V(1.0 + pair_of[i] % 255);
      first = (pushes & (many < 0.5)) ? place : first;
      last = pushes ? place : last;
      many = pushes ? many + 1.0 : many;
    }
  }
  const V like = ((many * 256.0 + first) * 256.0 + last) * 2097152.0 + floor;
  for (int l = 0; l < at.real; ++l) likeness[at.item[l] - begin] = vlane(like, l);
};

// What the environments in a block need, done; returns those that need no more for this step.
const auto serve = [&](int need, const Seats& at) -> M {
  V own[NUMBERS];
  const V* const num = numbers_of(at, own);
  Work work;
  seat(at, work);
  if (policy_layers && need == FIRST) decide(at, work);
  push_controls(work, num);
  M good, closed = everyone;
  if (need == FIRST) {
    const M sane = finite(work);
    for (int i = 0; i < NQ; ++i) work.x[i] = work.q[i];
    good = solve_newton(work, num, is_smooth, true, NEWTON_FIRST, sane);
    closed = good | !sane;
  } else {
    V report[REPORT];
    take_now(q_out, (size_t)batch * NQ, NQ, at, work.x);
    take_now(report_out, (size_t)batch * REPORT, REPORT, at, report);
    work.iterations = report[0];
    work.residual = report[1];
    work.paths = report[4];
    work.gap = report[5];
    work.deviation = report[7];
    if (need != MORE)
      for (int i = 0; i < WARM; ++i) work.warm[i] = none;
    if (need == MORE) {
      closed = good = solve_newton(work, num, is_smooth, false, NEWTON_MORE, everyone);
    } else if (need == SOFTER) {
      closed = good = solve_soft(work, num, everyone);
    } else if (need == PATH) {
      closed = good = solve_path(work, num, STAGES - 2, everyone);
    } else {
      good = none > unit;
      pull_velocity(work);
      for (int parts = 2; parts <= most_parts && vany(!good); parts *= 2)
        good = good | solve_parts(work, num, parts, !good);
      const M left = !good;
      if (most_parts > 1 && vany(left)) {
        Work trial = work;
        good = good | solve_path(trial, num, 0, left);
        pull_velocity(trial);
        take_over(work, trial, left);
      }
    }
  }
  if (need != PARTS) pull_velocity(work);
  M differentiable = good;
  const M whole = good & (work.parts < 1.5);
  if (want_soft) differentiable = soften(at, work, num, whole) | (good & !whole);
  leave(at, work, good, differentiable);
  compare(at, work);
  return closed;
};
const auto wait_for = [&](int need, int place, int round) {
  if (waiting[need] == 0) since[need] = round;
  queue[need][waiting[need]++] = place;
};
const auto sort_alike = [&](int* list, int count) {
  for (int gap = count / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
    for (int i = gap; i < count; ++i) {
      const int place = list[i];
      int j = i;
      for (; j >= gap && likeness[list[j - gap]] > likeness[place]; j -= gap)
        list[j] = list[j - gap];
      list[j] = place;
    }
};

for (int need = 0; need < NEEDS; ++need) waiting[need] = since[need] = 0;
for (int place = 0; place < size; ++place) {
  turn[place] = 0;
  likeness[place] = 0.0;
  queue[FIRST][waiting[FIRST]++] = place;
}
int list[TEAM_MOST * LANES];
// A few environments would wait for company that cannot come.
const int patience = (size - 1) / LANES < PATIENCE ? (size - 1) / LANES : PATIENCE;
for (int round = 0, open = size; open > 0; ++round) {
  for (int need = 0; need < NEEDS; ++need) {
    // Part of a block goes when nothing else is ready, or has waited long.
    const bool is_due = need == FIRST || waiting[FIRST] == 0 || round - since[need] >= patience;
    const int count = is_due ? waiting[need] : waiting[need] / LANES * LANES;
    if (count == 0) continue;
    for (int i = 0; i < count; ++i) list[i] = queue[need][i];
    for (int i = count; i < waiting[need]; ++i) queue[need][i - count] = queue[need][i];
    waiting[need] -= count;
    since[need] = round;
    if (need == FIRST) sort_alike(list, count);
    for (int first = 0; first < count; first += LANES) {
      const Seats at = seats_of(list, first, count);
      fetch(list, first + LANES, count);
      const V closed = vbool(serve(need, at));
      for (int l = 0; l < at.real; ++l) {
        const int place = list[first + l];
        if (vlane(closed, l) < 0.5) {
          wait_for(need + 1, place, round);
        } else if (++turn[place] < steps_count) {
          wait_for(FIRST, place, round);
        } else {
          --open;
        }
      }
    }
  }
}
