// One step of every block, arguments in lanes.
pull_back_step(q_in + (size_t)block * NQ, v_in + (size_t)block * NV,
               control_in + (size_t)block * NU, external_in + (size_t)block * NV,
               steps_in + (size_t)block * 2, numbers_in + (size_t)block * number_stride,
               x_in + (size_t)block * NQ, kappa_in + block,
               impulses_in + (size_t)block * (2 * LIMITS + RUBS + 3 * CONTACTS),
               gq_in + (size_t)block * NQ, gv_in + (size_t)block * NV,
               bar_q_out + (size_t)block * NQ, bar_v_out + (size_t)block * NV,
               bar_control_out + (size_t)block * NU, bar_external_out + (size_t)block * NV,
               bar_steps_out + (size_t)block * 2,
               bar_num_out + (size_t)block * (WITH_NUMBERS ? NUMBERS : 0));
