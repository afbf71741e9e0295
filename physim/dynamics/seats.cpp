// Which environments sit in the lanes of a block; lanes from `real` on repeat the last one.
struct Seats { int item[LANES]; int real; };
const auto gather = [&](const double* source, int width, const Seats& at, V* target) {
  for (int l = 0; l < LANES; ++l) {
    const double* const row = source + (size_t)at.item[l] * width;
    for (int i = 0; i < width; ++i) vput(target[i], l, row[i]);
  }
};
const auto scatter = [&](const V* source, int width, const Seats& at, double* target) {
  for (int l = 0; l < at.real; ++l) {
    double* const row = target + (size_t)at.item[l] * width;
    for (int i = 0; i < width; ++i) row[i] = vlane(source[i], l);
  }
};
