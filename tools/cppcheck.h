// Given to cppcheck before each file, because it does not read <sys/queue.h>.
#define LIST_HEAD(name, type)   struct name { struct type *lh_first; }
#define TAILQ_HEAD(name, type)  struct name { struct type *tqh_first, **tqh_last; }
#define STAILQ_HEAD(name, type) struct name { struct type *stqh_first, **stqh_last; }
#define LIST_FOREACH(var, head, field) for ((var) = (head)->lh_first; (var); (var) = (var)->field.le_next)
#define TAILQ_FOREACH(var, head, field) for ((var) = (head)->tqh_first; (var); (var) = (var)->field.tqe_next)
