-- Forgets a person or a server: what has to be one step. forgetting.py looks for what is to be erased.

-- A worker that has been silent for so long (ms) has died.
local STEP_MS = 10000

-- The preferences of a thread are dropped with the person who began it.
local function forget_choices(thread)
  redis.call('DEL', key('preferences', thread))
  redis.call('SREM', prefix .. 'preferences', thread)
end

-- Claims the job `who`, or with '' the next one, for a while. Returns it; false if there is none.
function verbs.claim_forgetting(who)
  local jobs = prefix .. 'forgetting'
  if who == '' then who = redis.call('ZRANGEBYSCORE', jobs, '-inf', now_ms(), 'LIMIT', 0, 1)[1] end
  if not who or not redis.call('ZSCORE', jobs, who) then return false end
  redis.call('ZADD', jobs, now_ms() + STEP_MS, who)
  return who
end

-- Removes jobs that begin later, and returns them. What is due in this time has begun, or was asked for by a person.
local AT_ONCE_MS = 60000

function verbs.cancel_forgetting(...)
  local jobs, cancelled = prefix .. 'forgetting', {}
  for _, who in ipairs({...}) do
    if (tonumber(redis.call('ZSCORE', jobs, who)) or 0) > now_ms() + AT_ONCE_MS then
      redis.call('ZREM', jobs, who)
      table.insert(cancelled, who)
    end
  end
  return cancelled
end

-- Erases a turn. Returns 0 if it has to end, or its reply to be repaired, first. With `stays_known` its id is neither
-- answered nor read again.
function verbs.erase(id, stays_known)
  if is_open(record(id)) then forget_turns({id}, false) end
  local turn = record(id)
  local thread = turn.thread
  if is_open(turn) then return 0 end
  -- Another worker may have erased it.
  if not thread then return 1 end
  local repairs, people = key('repairs', platform_of(thread)), key('speakers', thread)
  local is_first = redis.call('LINDEX', key('history', thread), 0) == id
  drop_from_contexts(id)
  leave_versions(id)
  forget_exchange(thread, id)
  -- An older repair will not run.
  if (tonumber(redis.call('ZSCORE', repairs, id)) or 0) > now_ms() - LATE_ADMISSION_MS then
    redis.call('HSETNX', key('turn', id), 'forget', QUESTION_ONLY)
    drop_words(id)
    return 0
  end
  redis.call('ZREM', repairs, id)
  redis.call('ZREM', key('turns', thread), id)
  drop_posted(id, thread)
  if redis.call('GET', key('newest', thread)) == id then redis.call('DEL', key('newest', thread)) end
  if redis.call('GET', key('told', thread)) == id then redis.call('SET', key('told', thread), '-', 'KEEPTTL') end
  local has_others = redis.call('SCARD', people) > redis.call('SISMEMBER', people, id_of(turn.person))
    or redis.call('LLEN', key('history', thread)) > 0
  if is_first or not has_others then forget_choices(thread) end
  close(id, turn.person)
  redis.call('DEL', key('turn', id), key('answered', id))
  drop_beside(id)
  if stays_known ~= '' then mark_dropped(id, keep_ms(thread)) end
  return 1
end

-- What a person or a server has used in a day or a month still counts, under a name that is anonymous once the salt is
-- gone. The first one to be hidden brings the `salt` of the period, which outlives it.
function verbs.hide_spent(period, who, salt)
  local name, keep_ms = key('spent', period, who), is_month(period) and MONTH_MS or SPENT_MS
  redis.call('SET', key('spent', 'salt', period), salt, 'NX', 'PX', keep_ms)
  local hidden = key('spent', period, redis.sha1hex(redis.call('GET', key('spent', 'salt', period)) .. who))
  for _, field in ipairs({'questions', 'tokens', 'calls', 'money'}) do
    redis.call('HINCRBY', hidden, field, natural(redis.call('HGET', name, field)))
  end
  redis.call('PEXPIRE', hidden, keep_ms)
  return redis.call('DEL', name)
end

-- Drops a persona with the person who wrote it, if nobody has written another one meanwhile. `by` is as JSON has it.
function verbs.forget_persona(place, by)
  local name = key('preferences', place)
  if redis.call('HGET', name, 'persona_by') ~= by then return 0 end
  redis.call('HDEL', name, 'persona', 'persona_by')
  if redis.call('HLEN', name) == 0 then forget_choices(place) end
  return 1
end

-- After a person's turns are erased: releases those of others behind them, and drops ids whose records have expired.
function verbs.release_others(person)
  count_turns(key('open', person))
  count_turns(key('running', person))
  while redis.call('ZCARD', key('throttled', person)) > 0 do wake_throttled(person) end
  return 1
end
