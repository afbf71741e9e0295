// Contacts between links on top of the tree's solution. With the tree's answer G to their impulses
// their increments solve (1 + C G) d = a - C u, a small dense system; the tree then answers d.
// Environments push with different pairs: slot s is the s-th pair that pushes in a lane, so that the
// dense system has as many rows as a lane has contacts, not as the block has pairs.
{
  const int known = pairs;
  const auto relative = [&](int pair, int r, const V* twists) -> V {
    const V* const row = pair_rows[pair] + 6 * axis[r];
    const V* const ta = twists + 6 * pair_a[pair];
    const V* const tb = twists + 6 * pair_b[pair];
    V sum = zero;
    #pragma unroll
    for (int m = 0; m < MOVES; ++m)
      sum = sum + row[move[m]] * ta[move[m]] - row[18 + move[m]] * tb[move[m]];
    return sum;
  };
  V slot[PAIRS + 1];
  int slots = 0, first_slot[PAIRS + 1], last_slot[PAIRS + 1];
  filled = zero;
  for (int p = 0; p < known; ++p) {
    slot[p] = pair_on[p] > 0.5 ? filled : V(-1.0);
    filled = filled + pair_on[p];
    first_slot[p] = SLOTS_MOST;
    last_slot[p] = -1;
    for (int l = 0; l < LANES; ++l) {
      const int place = (int)vlane(slot[p], l);
      // More than this is not for Newton; lanes that have more do not pass.
      if (place < 0 || place >= SLOTS_MOST) continue;
      if (place < first_slot[p]) first_slot[p] = place;
      if (place > last_slot[p]) last_slot[p] = place;
    }
    if (last_slot[p] >= slots) slots = last_slot[p] + 1;
  }
  const int size = AXES * slots;
  if (slots > 0) {
    // The tree's matrix is eliminated from the leaves, so a contact meets only the joints that carry
    // it: its impulses push them, its velocity rows pull them, and the answer of one slot to another
    // is the sum of their products over the joints and roots that carry both. Joints that carry it
    // in some lane only are zero in the others.
    struct Way {
      V push[NV + 1][AXES], pull[NV + 1][AXES];
      V turn[ROOTS + 1][6][AXES], row[ROOTS + 1][6][AXES];
      V gain[AXES][AXES];
      bool has[NV + 1], turns[ROOTS + 1];
    };
    V system[9 * SLOTS_MOST * SLOTS_MOST], change[3 * SLOTS_MOST], aims[PAIRS + 1][AXES];
    Way ways[SLOTS_MOST];
    for (int p = 0; p < known; ++p) {
      V speed[AXES];
      #pragma unroll
      for (int c = 0; c < AXES; ++c) speed[c] = relative(p, c, twist);
      #pragma unroll
      for (int r = 0; r < AXES; ++r) {
        aims[p][r] = pair_reply[p][axis[r]];
        #pragma unroll
        for (int c = 0; c < AXES; ++c)
          aims[p][r] = aims[p][r] - pair_reply[p][3 + 3 * axis[r] + axis[c]] * speed[c];
      }
    }
    for (int i = 0; i < size; ++i) change[i] = zero;
    const auto find_way = [&](int s) __attribute__((noinline)) {
      V force[NL + 1][AXES][MOVES], row[NL + 1][AXES][MOVES];
      bool carries[NL + 1];
      Way& way = ways[s];
      for (int link = 0; link <= NL; ++link) carries[link] = false;
      for (int d = 0; d < NV; ++d) way.has[d] = false;
      for (int n = 0; n < ROOTS; ++n) way.turns[n] = false;
      #pragma unroll
      for (int r = 0; r < AXES; ++r)
        #pragma unroll
        for (int c = 0; c < AXES; ++c) way.gain[r][c] = zero;
      const auto clear = [&](int link) {
        for (int i = 0; i < AXES * MOVES && !carries[link]; ++i)
          force[link][0][i] = row[link][0][i] = zero;
        carries[link] = true;
      };
      for (int p = 0; p < known; ++p) {
        if (s < first_slot[p] || s > last_slot[p]) continue;
        const M here = slot[p] == (double)s;
        const int a = pair_a[p], b = pair_b[p];
        clear(a);
        clear(b);
        #pragma unroll
        for (int r = 0; r < AXES; ++r) {
          #pragma unroll
          for (int m = 0; m < MOVES; ++m) {
            const V* const rows = pair_rows[p] + 6 * axis[r] + move[m];
            const V part = here ? rows[36] : zero;
            row[a][r][m] = row[a][r][m] + (here ? rows[0] : zero);
            row[b][r][m] = row[b][r][m] - (here ? rows[18] : zero);
            force[a][r][m] = force[a][r][m] + part;
            force[b][r][m] = force[b][r][m] - part;
          }
          #pragma unroll
          for (int c = 0; c < AXES; ++c)
            way.gain[r][c] = here ? pair_reply[p][3 + 3 * axis[r] + axis[c]] : way.gain[r][c];
          change[AXES * s + r] = here ? aims[p][r] : change[AXES * s + r];
        }
      }
      // Children stand behind their parents.
      for (int link = NL - 1; link >= 0; --link) {
        if (!carries[link]) continue;
        const int parent = parent_of[link], n = root_place[link];
        const int first = first_dof[link], last = first + dofs_of[link] - 1;
        for (int d = last; d >= first; --d) way.has[d] = true;
        const bool joins = parent >= 0 && carries[parent];
        #pragma unroll
        for (int r = 0; r < AXES; ++r) {
          V f[MOVES], w[MOVES];
          #pragma unroll
          for (int m = 0; m < MOVES; ++m) {
            f[m] = force[link][r][m];
            w[m] = row[link][r][m];
          }
          for (int d = last; d >= first; --d) {
            const V* const here = motion0 + 6 * d;
            const V* const ahead = motion1 + 6 * d;
            const V* const answer = response + 6 * kept_place[d];
            const V* const load = carried + 6 * kept_place[d];
            V push = here[move[0]] * f[0], pull = ahead[move[0]] * w[0];
            #pragma unroll
            for (int m = 1; m < MOVES; ++m) {
              push = push + here[move[m]] * f[m];
              pull = pull + ahead[move[m]] * w[m];
            }
            pull = pull * inverse[kept_place[d]];
            way.push[d][r] = push;
            way.pull[d][r] = pull;
            #pragma unroll
            for (int m = 0; m < MOVES; ++m) {
              f[m] = f[m] - answer[move[m]] * push;
              w[m] = w[m] - load[move[m]] * pull;
            }
          }
          if (parent >= 0) {
            #pragma unroll
            for (int m = 0; m < MOVES; ++m) {
              force[parent][r][m] = joins ? force[parent][r][m] + f[m] : f[m];
              row[parent][r][m] = joins ? row[parent][r][m] + w[m] : w[m];
            }
          } else if (n >= 0) {
            #pragma unroll
            for (int m = 0; m < MOVES; ++m) {
              way.turn[n][move[m]][r] = f[m];
              way.row[n][move[m]][r] = w[m];
            }
          }
        }
        if (parent >= 0) carries[parent] = true;
        if (n < 0) continue;
        const V* const factor = root + 36 * n;
        V (&turn)[6][AXES] = way.turn[n];
        way.turns[n] = true;
        const auto take = [&](int k, int i, V share) __attribute__((always_inline)) {
          #pragma unroll
          for (int r = 0; r < AXES; ++r) turn[k][r] = turn[k][r] - share * turn[i][r];
        };
        #pragma unroll
        for (int k = 5; k >= 0; --k)
          for (int i = 0; i < k; ++i) take(i, k, factor[6 * i + k]);
        #pragma unroll
        for (int k = 0; k < 6; ++k) {
          for (int j = 0; j < k; ++j) take(k, j, factor[6 * k + j]);
          #pragma unroll
          for (int r = 0; r < AXES; ++r) turn[k][r] = turn[k][r] * factor[7 * k];
        }
      }
    };
    for (int s = 0; s < slots; ++s) find_way(s);
    for (int s = 0; s < slots; ++s)
      for (int t = 0; t < slots; ++t) {
        const Way& pulled = ways[s];
        const Way& pushed = ways[t];
        V speed[AXES][AXES];
        #pragma unroll
        for (int i = 0; i < AXES; ++i)
          #pragma unroll
          for (int c = 0; c < AXES; ++c) speed[i][c] = zero;
        const auto add = [&](const V* pull, const V* push) __attribute__((always_inline)) {
          #pragma unroll
          for (int i = 0; i < AXES; ++i)
            #pragma unroll
            for (int c = 0; c < AXES; ++c) speed[i][c] = speed[i][c] + pull[i] * push[c];
        };
        for (int d = 0; d < NV; ++d)
          if (pulled.has[d] && pushed.has[d]) add(pulled.pull[d], pushed.push[d]);
        for (int n = 0; n < ROOTS; ++n)
          if (pulled.turns[n] && pushed.turns[n])
            for (int m = 0; m < MOVES; ++m) add(pulled.row[n][move[m]], pushed.turn[n][move[m]]);
        #pragma unroll
        for (int r = 0; r < AXES; ++r)
          #pragma unroll
          for (int c = 0; c < AXES; ++c) {
            V sum = s == t && r == c ? one : zero;
            #pragma unroll
            for (int i = 0; i < AXES; ++i) sum = sum + pulled.gain[r][i] * speed[i][c];
            system[(AXES * s + r) * size + AXES * t + c] = sum;
          }
      }
    for (int k = size - 1; k >= 0; --k) {
      determinant[0] = determinant[0] * system[k * size + k];
      const V per_pivot = one / system[k * size + k];
      for (int i = 0; i < k; ++i) {
        const V share = system[i * size + k] * per_pivot;
        change[i] = change[i] - share * change[k];
        for (int j = 0; j < k; ++j)
          system[i * size + j] = system[i * size + j] - share * system[k * size + j];
      }
    }
    for (int k = 0; k < size; ++k) {
      for (int j = 0; j < k; ++j) change[k] = change[k] - system[k * size + j] * change[j];
      change[k] = change[k] / system[k * size + k];
    }
    for (int i = 0; i < 6 * (NL + 1); ++i) react[i] = zero;
    for (int p = 0; p < known; ++p)
      for (int r = 0; r < AXES; ++r) {
        V strength = zero;
        for (int s = first_slot[p]; s <= last_slot[p]; ++s)
          strength = slot[p] == (double)s ? change[AXES * s + r] : strength;
        pair_change[p][axis[r]] = strength;
        for (int m = 0; m < MOVES; ++m) {
          const int a = 6 * pair_a[p] + move[m], b = 6 * pair_b[p] + move[m];
          const V part = strength * pair_rows[p][36 + 6 * axis[r] + move[m]];
          react[a] = react[a] + part;
          react[b] = react[b] - part;
        }
      }
    @REACT@
  }
  @FINISH@
}
