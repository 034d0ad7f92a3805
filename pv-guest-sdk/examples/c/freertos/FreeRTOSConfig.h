/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What this guest wants of the kernel. The names are the kernel's: its documentation explains them. */
#ifndef FREERTOS_CONFIG_H
#define FREERTOS_CONFIG_H

/* Scheduling. Ticks cost an interrupt each only while a task is ready: an idle guest takes none. */
#define configNUMBER_OF_CORES 1
#define configUSE_PREEMPTION 1
#define configUSE_TIME_SLICING 1
#define configUSE_PORT_OPTIMISED_TASK_SELECTION 1
#define configUSE_TICKLESS_IDLE 1
#define configEXPECTED_IDLE_TIME_BEFORE_SLEEP 2
#define configIDLE_SHOULD_YIELD 1
#define configTICK_RATE_HZ 1000
#define configTICK_TYPE_WIDTH_IN_BITS TICK_TYPE_WIDTH_64_BITS
#define configMAX_PRIORITIES 8
#define configMAX_TASK_NAME_LEN 16
#define configENABLE_BACKWARD_COMPATIBILITY 0

/* Memory. Stacks are counted in words of 8 bytes; each holds the task's registers, FP and SIMD ones too, which are 816 bytes. */
#define configMINIMAL_STACK_SIZE 512
#define configTOTAL_HEAP_SIZE (512 * 1024)
#define configSUPPORT_STATIC_ALLOCATION 1
#define configSUPPORT_DYNAMIC_ALLOCATION 1
#define configKERNEL_PROVIDED_STATIC_MEMORY 1

/* Objects. */
#define configUSE_TASK_NOTIFICATIONS 1
#define configUSE_MUTEXES 1
#define configUSE_RECURSIVE_MUTEXES 1
#define configUSE_COUNTING_SEMAPHORES 1
#define configUSE_TIMERS 1
#define configTIMER_TASK_PRIORITY (configMAX_PRIORITIES - 1)
#define configTIMER_QUEUE_LENGTH 16
#define configTIMER_TASK_STACK_DEPTH configMINIMAL_STACK_SIZE
#define configUSE_TRACE_FACILITY 1

/* Hooks: see hooks.c. */
#define configUSE_IDLE_HOOK 1
#define configUSE_TICK_HOOK 0
#define configUSE_MALLOC_FAILED_HOOK 1
#define configCHECK_FOR_STACK_OVERFLOW 2
/* By function and line: a path of the machine that built it would say less. */
_Noreturn void vAssertCalled(const char *pcFunction, unsigned int uiLine);
#define configASSERT(condition)                          \
	do {                                             \
		if (!(condition))                        \
			vAssertCalled(__func__, __LINE__); \
	} while (0)

#define INCLUDE_vTaskDelete 1
#define INCLUDE_vTaskDelay 1
#define INCLUDE_xTaskDelayUntil 1
#define INCLUDE_vTaskSuspend 1
#define INCLUDE_vTaskPrioritySet 1
#define INCLUDE_uxTaskPriorityGet 1
#define INCLUDE_uxTaskGetStackHighWaterMark 1
#define INCLUDE_xTaskGetCurrentTaskHandle 1
#define INCLUDE_xTaskGetSchedulerState 1
#define INCLUDE_eTaskGetState 1

#endif
