-- Ratings of answers.

-- Of people who rate one answer; further ratings are not stored.
local MOST_RATINGS = 200

-- Stores a person's rating of a remembered answer, until there is another answer. Returns {model, 'first' or 'again'}.
function verbs.rate(id, person, rating)
  local turn, name = record(id), key('ratings', id)
  if not has(id, 'answer') then return is_open(turn) and 'thread' or 'gone' end
  local again = redis.call('HEXISTS', name, person) == 1
  local counts = not again and redis.call('HLEN', name) < MOST_RATINGS
  if (again or counts) and not is_being_forgotten(platform_of(turn.thread), quoted(person)) then
    redis.call('HSET', name, person, rating)
    keep_in(turn.thread, name)
  end
  return {get(id, 'model') or '', counts and 'first' or 'again'}
end
