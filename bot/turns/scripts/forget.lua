-- Forgets turns, and resets threads.

-- Of messages that were deleted before they were known.
local MOST_MARKS = 10000

local function leave_out(id, lead)
  local others = {}
  for _, one in ipairs(joined_to(lead)) do
    if one ~= id then table.insert(others, one) end
  end
  redis.call('HSET', key('turn', lead), 'joined', #others > 0 and cjson.encode(others) or '[]')
  if is_open(record(lead)) then ask_for_anew(lead) end
end

-- Of a message whose turn may still be admitted.
local function mark_unknown(id)
  local marks = key('marks')
  mark_dropped(id, LATE_ADMISSION_MS)
  redis.call('ZADD', marks, now_ms(), id)
  redis.call('PEXPIRE', marks, LATE_ADMISSION_MS)
  redis.call('ZREMRANGEBYSCORE', marks, '-inf', now_ms() - LATE_ADMISSION_MS)
  if redis.call('ZCARD', marks) > MOST_MARKS then
    redis.call('DEL', key('turn', redis.call('ZPOPMIN', marks)[1]))
  end
end

-- The thread's next turn does not wait for what the dropped one waited for. If the drop leaves room for one
-- more turn of its person, another thread of the person becomes ready.
local function drop(id, turn)
  local mailbox = key('mailbox', turn.thread)
  local first = redis.call('LINDEX', mailbox, 0) == id
  redis.call('HSET', key('turn', id), 'state', 'dropped')
  settle(id, turn, false, 0)
  drop_question(id)
  redis.call('LREM', mailbox, 1, id)
  close(id, turn.person)
  if not first then return end
  leave_queue(turn.thread, turn.person)
  if redis.call('LLEN', mailbox) > 0 then make_ready(turn.thread) end
  wake_throttled(turn.person)
end

-- Adds to `ids` the turns of a thread, open or remembered, whose answer has one of these messages (a set). A
-- message that a worker has deleted belongs to no answer.
local function find_answers(thread, wanted, ids)
  local turns = redis.call('LRANGE', key('mailbox', thread), 0, -1)
  for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do
    table.insert(turns, turn_of(line))
  end
  for _, id in ipairs(turns) do
    local removed, found = {}, false
    for _, message in ipairs(ids_in(redis.call('HGET', key('turn', id), 'message_ids') or '')) do
      if wanted[message] then
        for _, own in ipairs(removed_messages(id)) do removed[own] = true end
        found = found or not removed[message]
      end
    end
    if found then
      -- First, because otherwise they would be answered by themselves.
      for _, joined in ipairs(joined_to(id)) do table.insert(ids, joined) end
      table.insert(ids, id)
    end
  end
end

-- A turn that has ended is forgotten with those that were answered together with it.
local function forget_joined(lead, remembered)
  redis.call('HSETNX', key('turn', lead), 'forget', '1')
  remembered[lead] = true
  drop_question(lead)
  for _, one in ipairs(joined_to(lead)) do drop_question(one) end
end

-- With AFTER_REPAIR, an answer whose buttons are to go stays until then.
local function drop_forgotten_answer(id, how)
  local name, turn = key('turn', id), record(id)
  if redis.call('HEXISTS', name, 'forget') == 0 then return end
  redis.call('HSET', name, 'forget', how)
  redis.call('HDEL', name, 'previous_answer')
  local has_repair = how == AFTER_REPAIR and redis.call('ZSCORE', key('repairs', platform_of(turn.thread)), id)
  if not is_open(turn) and not has_repair then redis.call('HSET', name, 'shown', '') end
end

-- The turns of the first arguments, `count` in number, and those whose answers have the messages behind them. A
-- message may be that of a post whose answer is under way (`may_be_admitted_later`).
local function turns_of(may_be_admitted_later, platform, count, ...)
  local ids, threads, all = {}, {}, {...}
  for at, one in ipairs(all) do
    if at <= tonumber(count) then
      table.insert(ids, one)
    else
      local thread = redis.call('GET', key('posted', platform, one))
      if thread then
        threads[thread] = threads[thread] or {}
        threads[thread][one] = true
      elseif may_be_admitted_later then
        redis.call('SET', key('deleted', platform, one), '1', 'PX', LATE_ADMISSION_MS)
      end
    end
  end
  for thread, wanted in pairs(threads) do find_answers(thread, wanted, ids) end
  return ids
end

-- If the newest reply of a thread is among those that are forgotten, the last one that is remembered is the newest
-- again. Both are written once more: this one with its buttons, and the other one, if it is still there, without.
local function note_older_newest(thread, ids)
  local name, last = key('newest', thread), last_remembered(thread)
  local newest = redis.call('GET', name)
  if type(newest) ~= 'string' or not ids[newest] then return end
  repair_buttons(newest, thread)
  if last == '' or last_of(redis.call('HGET', key('turn', last), 'message_ids') or '') == '' then return end
  redis.call('SET', name, last, 'PX', ARGV[2])
  repair_buttons(last, thread)
end

-- Forgets these turns and all that continues them. A turn that was released in mid-reply is taken once more, to
-- end what is shown.
local function forget_turns(ids, may_be_admitted_later)
  local remembered, known = {}, {}
  -- An answer goes with all that continues it; ipairs finds those that are added here, too.
  for _, one in ipairs(ids) do
    local answered = lead_of(one) or one
    for _, following in ipairs(known[answered] and {} or continued_by(answered)) do
      table.insert(ids, following)
    end
    known[answered] = true
  end
  for _, id in ipairs(ids) do
    local turn, name, lead = record(id), key('turn', id), lead_of(id)
    drop_from_contexts(id)
    if lead then leave_out(id, lead) end
    if turn.thread and turn.state == 'queued' and redis.call('HEXISTS', name, 'message_ids') == 0 then
      redis.call('HDEL', name, 'joined')
      drop(id, turn)
    elseif turn.thread then
      redis.call('HSETNX', name, 'forget', '1')
      redis.call('HDEL', name, 'edited_since_take')
      remembered[turn.thread] = remembered[turn.thread] or {}
      local here = remembered[turn.thread]
      here[id] = true
      if lead then
        drop_question(id)
        -- The exchange has the question, too.
        here[lead] = true
        if not is_open(record(lead)) then forget_joined(lead, here) end
      elseif is_open(turn) then
        verbs.stop(id)
        -- Those that wait are answered by themselves.
        redis.call('HDEL', name, 'joined')
      else
        forget_joined(id, here)
      end
    elseif may_be_admitted_later then
      mark_unknown(id)
    end
  end
  for thread, ids in pairs(remembered) do
    forget_exchanges(thread, ids)
    note_older_newest(thread, ids)
  end
end

-- `asked` is when the last of the turns was asked (ms; '' if that is not known). If that is less than ten
-- minutes ago, its admission may still come.
function verbs.forget(asked, ...)
  local may_be_admitted_later = now_ms() - (tonumber(asked) or now_ms()) < LATE_ADMISSION_MS
  forget_turns(turns_of(may_be_admitted_later, ...), may_be_admitted_later)
end

-- Forgets all that was said in a thread, and stops the answer that grows; questions that wait are answered without what
-- was before them. `event` is the id of a command in a thread whose replies have buttons, else ''. It counts once.
function verbs.reset(thread, event)
  if event ~= '' and not redis.call('SET', key('pressed', event), thread, 'NX', 'PX', PRESS_MS) then return 0 end
  local ids = redis.call('ZRANGE', key('turns', thread), 0, -1)
  for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do table.insert(ids, turn_of(line)) end
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    if redis.call('HEXISTS', key('turn', id), 'message_ids') == 1 or record(id).state == 'running' then
      -- In front, joined questions before their lead: otherwise they would be answered by themselves.
      for _, one in ipairs({id, unpack(joined_to(id))}) do table.insert(ids, 1, one) end
    end
    redis.call('HDEL', key('turn', id), 'context')
  end
  forget_turns(ids, false)
  for _, id in ipairs(ids) do drop_forgotten_answer(id, event == '' and WITH_ANSWER or AFTER_REPAIR) end
  redis.call('DEL', key('history', thread), key('names', thread), key('told', thread), key('turns', thread))
  note_seen(thread)
  return 1
end

-- Drops the answers of turns that were forgotten, also of those that end later. For platforms on which no late
-- write has to be corrected from them.
function verbs.forget_answers(...)
  for _, id in ipairs({...}) do drop_forgotten_answer(id, WITH_ANSWER) end
end
